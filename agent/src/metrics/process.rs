//! The metrics every Prometheus client library has of its own process, from `/proc` (proc(5)). What cannot be
//! read is left out.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use super::exposition::{family, line};

/// Appends the process's metrics.
pub(super) fn render(text: &mut String) {
    let mut metric = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            family(text, name, kind, help);
            line(text, format_args!("{name} {value}"));
        }
    };
    let stat = Stat::read();
    let cpu = stat.as_ref().map(|stat| stat.cpu_seconds);
    metric("process_cpu_seconds_total", "counter", "User and system CPU time spent.", cpu);
    let resident = stat.as_ref().map(|stat| stat.resident_bytes);
    metric("process_resident_memory_bytes", "gauge", "Resident memory size.", resident);
    let virtual_size = stat.as_ref().map(|stat| stat.virtual_bytes);
    metric("process_virtual_memory_bytes", "gauge", "Virtual memory size.", virtual_size);
    let start = stat.as_ref().and_then(|stat| Some(boot_time()? + stat.start_seconds));
    metric("process_start_time_seconds", "gauge", "Start time of the process since the Unix epoch.", start);
    // The listing itself has one descriptor open.
    let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64);
    metric("process_open_fds", "gauge", "Number of open file descriptors.", open);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft as f64);
    metric("process_max_fds", "gauge", "Maximum number of open file descriptors.", limit);
}

/// Of `/proc/self/stat`.
struct Stat {
    cpu_seconds: f64,
    /// Since boot.
    start_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    fn read() -> Option<Stat> {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok()?? as f64;
        let page = sysconf(SysconfVar::PAGE_SIZE).ok()?? as f64;
        Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?, ticks, page)
    }

    fn parse(text: &str, ticks: f64, page: f64) -> Option<Stat> {
        // The second field is the program's name in parentheses and may hold anything; the third follows it.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            start_seconds: field(22)? / ticks,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page,
        })
    }
}

/// Seconds from the Unix epoch to the boot.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_nothing() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 9 0 1000 4096 3 0\n";
        let stat = Stat::parse(text, 100.0, 4096.0).unwrap();
        assert_eq!((stat.cpu_seconds, stat.start_seconds), (2.0, 10.0));
        assert_eq!((stat.virtual_bytes, stat.resident_bytes), (4096.0, 12288.0));
    }

    #[test]
    fn this_process_has_all_of_them() {
        let mut text = String::new();
        render(&mut text);
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE ")).count(), 6, "{text}");
    }
}
