//! On what was measured.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use vifd_integration::lab::find_tool;

/// The machine, and how busy it was.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Model of its processors.
    pub processor: String,
    /// How many there are.
    pub processors: usize,
    /// Kernel release.
    pub kernel: String,
    /// Version of Open vSwitch.
    pub ovs: String,
    /// Seconds since 1970 when the run began.
    pub began: u64,
    /// The first two load averages (1 and 5 minutes) when the run began, and after each measurement.
    pub load: Vec<[f64; 2]>,
}

impl Machine {
    /// Looks around.
    #[must_use]
    pub fn look() -> Machine {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let mut machine = Machine {
            processor: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: first_line(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
            ovs: version("ovs-vswitchd"),
            began: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            load: Vec::new(),
        };
        machine.note_load();
        machine
    }

    /// Notes how busy it is now.
    pub fn note_load(&mut self) {
        let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let mut averages = text.split(' ').map_while(|word| word.parse().ok());
        self.load.push([averages.next().unwrap_or_default(), averages.next().unwrap_or_default()]);
    }
}

fn version(program: &str) -> String {
    let output = find_tool(program).ok().and_then(|path| Command::new(path).arg("--version").output().ok());
    first_line(&output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
