//! What a switch says that it was asked over OpenFlow: its own log of messages, so that a promise about them does not rest
//! on what vifd says of itself.

use anyhow::{Context, Result};

use super::ovs::Ovs;

/// A message that a switch had from one of its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Milliseconds of the day, by the switch's clock.
    pub at: u64,
    /// The connection, such as `unix#4`.
    pub connection: String,
    /// Its name, such as `FLOW_MOD`.
    pub message: String,
    /// What it says.
    pub text: String,
}

/// Messages that change what a switch does, or send a packet.
const MODIFYING: [&str; 6] =
    ["FLOW_MOD", "GROUP_MOD", "METER_MOD", "BUNDLE_CONTROL", "BUNDLE_ADD_MESSAGE", "PACKET_OUT"];

impl Asked {
    /// Whether it changes anything, or sends a packet.
    #[must_use]
    pub fn modifies(&self) -> bool {
        MODIFYING.contains(&self.message.as_str())
    }

    /// Whether it makes a bundle's messages take effect.
    #[must_use]
    pub fn commits(&self) -> bool {
        self.message == "BUNDLE_CONTROL" && self.text.contains("COMMIT_REQUEST")
    }

    /// Reads `2026-11-22T22:40:01.123Z|00042|vconn|DBG|unix#4: received: OFPT_FLOW_MOD (OF1.4) (xid=0x8): ADD …`.
    fn read(line: &str) -> Option<Asked> {
        let (time, rest) = line.split_once('Z')?;
        let (_, time) = time.split_once('T')?;
        let rest = rest.split_once("|vconn|DBG|").map(|(_, rest)| rest)?;
        let (connection, rest) = rest.split_once(": received: OFPT_")?;
        let (message, text) = rest.split_once(' ')?;
        let mut numbers = time.split([':', '.']).map(|number| number.parse::<u64>().ok());
        let (hours, minutes, seconds, millis) =
            (numbers.next()??, numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Asked {
            at: ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis,
            connection: connection.to_owned(),
            message: message.to_owned(),
            text: text.to_owned(),
        })
    }
}

impl Ovs {
    /// Makes ovs-vswitchd write down every message of OpenFlow that it gets, from now on and when it is started again.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn keep_account(&mut self) -> Result<()> {
        self.verbosity.push("vconn:file:dbg".to_owned());
        self.appctl(["vlog/set", "vconn:file:dbg"])?;
        self.appctl(["vlog/disable-rate-limit", "vconn"])?;
        Ok(())
    }

    /// What it was asked since [`Ovs::keep_account`], by everybody who has a connection, oldest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn account(&self) -> Result<Vec<Asked>> {
        let text = std::fs::read_to_string(self.vswitchd_log()).context("the log of ovs-vswitchd")?;
        Ok(read(&text))
    }
}

fn read(text: &str) -> Vec<Asked> {
    let mut account: Vec<Asked> = Vec::new();
    let mut within = false;
    for line in text.lines() {
        if line.split_once('Z').is_some_and(|(_, rest)| rest.starts_with('|')) {
            let asked = Asked::read(line);
            within = asked.is_some();
            account.extend(asked);
        } else if let Some(asked) = account.last_mut().filter(|_| within) {
            // What is said of a message may take several lines.
            asked.text.push_str(line);
        }
    }
    account
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_log_are_read() {
        let text = "2026-11-22T01:02:03.004Z|00042|vconn|DBG|unix#4: received: OFPT_BUNDLE_CONTROL (OF1.4) (xid=0x8):\n \
                    bundle_id=0x1 type=COMMIT_REQUEST flags=atomic ordered\n\
                    2026-11-22T01:02:03.005Z|00043|vconn|DBG|unix#4: sent (Success): OFPT_BUNDLE_CONTROL (OF1.4) (xid=0x8):\n \
                    bundle_id=0x1 type=COMMIT_REPLY flags=0\n\
                    2026-11-22T01:02:03.006Z|00044|vconn|DBG|unix#5: received: OFPT_HELLO (OF1.4) (xid=0x0):\n";
        let account = read(text);
        let [commit, hello] = &account[..] else { panic!("{account:?}") };
        assert_eq!((commit.at, commit.connection.as_str()), (3_723_004, "unix#4"));
        assert!(commit.modifies() && commit.commits() && !commit.text.contains("REPLY"));
        assert!(!hello.modifies() && hello.message == "HELLO");
    }
}
