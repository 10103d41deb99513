//! lldpad, which speaks 802.1Qbg for a host, and for the bridge at the other end of its cable as well.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::namespace::{Namespace, private_directory};
use super::process::{Daemon, Lifetime};
use super::tools::find_tool;

/// Which end of the cable an [`Lldpad`] speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The host, which asks.
    Station,
    /// The bridge, which answers. lldpad's says yes to everything, as far as it says anything.
    Bridge,
}

/// Which 802.1Qbg an [`Lldpad`] speaks. Both ends speak the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qbg {
    /// The draft 0.2 that switches had first. lldpad's bridge takes a VSI and never answers: that part of it is not written.
    Draft,
    /// The standard of 2012.
    Standard,
}

/// An lldpad of a namespace, for one of its links. Dropping it ends it.
#[derive(Debug)]
pub struct Lldpad {
    daemon: Daemon,
    directory: tempfile::TempDir,
}

impl Lldpad {
    /// Starts it. Two ends of a cable agree on VDP some seconds after the second one was started.
    ///
    /// # Errors
    /// When lldpad is missing.
    pub fn start(namespace: &Namespace, link: &str, edge: Edge, qbg: Qbg) -> Result<Lldpad> {
        let directory = private_directory()?;
        let role = match edge {
            Edge::Station => "station",
            Edge::Bridge => "bridge",
        };
        // By the TLV in which each is offered.
        let offer = match qbg {
            Qbg::Draft => format!(
                r#"tlvid001b3f00 : {{ enableTx = true; fmode = "bridge"; capabilities = "rte,ecp,vdp"; }};
                   vdp : {{ enableTx = true; role = "{role}"; }};"#
            ),
            // Times are 10 us to the power of two: 0.16 s until a frame is sent again, 1.3 s until a VSI is spoken of again.
            Qbg::Standard => format!(
                r#"tlvid0080c20d : {{
                     enableTx = true; evbmode = "{role}"; evbrrcap = false; evbrrreq = false; evbgpid = false;
                     ecpretries = 3; ecprte = 14; vdprwd = 20; vdprka = 17;
                   }};"#
            ),
        };
        let config = format!("nearest_customer_bridge : {{ {link} : {{ adminStatus = 3; {offer} }}; }};");
        let path = directory.path().join("lldpad.conf");
        fs::write(&path, config)?;
        let lldpad = find_tool("lldpad")?;
        // Its one shared memory is of the whole machine. What is mounted here is seen by this process alone: `ip netns exec` gives it
        // mounts of its own.
        let configure = |command: &mut Command| {
            command.args(["-euc", r#"mount -t tmpfs lldpad /dev/shm; exec "$0" -p -t -V 7 -f "$1""#]);
            command.arg(&lldpad).arg(&path);
        };
        let daemon = namespace.daemon(&find_tool("bash")?, configure, &directory.path().join("log"), Lifetime::Test)?;
        Ok(Lldpad { daemon, directory })
    }

    /// The netlink port at which it takes requests: its process id.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.daemon.pid()
    }

    /// A file in which its process id stands as lldpad itself writes it: number, line, and zeros up to 32 octets.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn pid_file(&self) -> Result<PathBuf> {
        let path = self.directory.path().join("lldpad.pid");
        let mut content = format!("{}\n", self.port()).into_bytes();
        content.resize(32, 0);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Keeps it from doing anything for a while.
    ///
    /// # Errors
    /// When it is gone.
    pub fn pause(&self, time: Duration) -> Result<()> {
        self.daemon.signal(Signal::SIGSTOP)?;
        std::thread::sleep(time);
        self.daemon.signal(Signal::SIGCONT)
    }

    /// The end of what it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log_tail(40)
    }
}
