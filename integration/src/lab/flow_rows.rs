//! The flows of a bridge with what the switch counts, as `ovs-ofctl` prints them: the lab reads no OpenFlow of its own.

use anyhow::{Context, Result};

use super::ovs::Ovs;

/// A flow.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowRow {
    /// Its cookie.
    pub cookie: u64,
    /// Seconds that it has been there.
    pub duration: f64,
    /// Its table.
    pub table: u8,
    /// Packets that it matched.
    pub packets: u64,
    /// Its priority.
    pub priority: u16,
    /// Its match, as text, without the priority.
    pub matching: String,
    /// What it does, as text.
    pub actions: String,
}

impl FlowRow {
    /// What makes it this flow and no other.
    #[must_use]
    pub fn identity(&self) -> (u8, u16, &str) {
        (self.table, self.priority, &self.matching)
    }

    fn read(line: &str) -> Option<FlowRow> {
        let (head, actions) = line.trim().split_once(" actions=")?;
        let mut row = FlowRow {
            cookie: 0,
            duration: 0.0,
            table: 0,
            packets: 0,
            // OpenFlow's default, which is not printed.
            priority: 0x8000,
            matching: String::new(),
            actions: actions.to_owned(),
        };
        for part in head.split(", ").flat_map(|part| part.split(' ')).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("cookie", value)) => row.cookie = u64::from_str_radix(value.trim_start_matches("0x"), 16).ok()?,
                Some(("duration", value)) => row.duration = value.trim_end_matches('s').parse().ok()?,
                Some(("table", value)) => row.table = value.parse().ok()?,
                Some(("n_packets", value)) => row.packets = value.parse().ok()?,
                Some(("n_bytes" | "idle_age" | "hard_age", _)) => {}
                _ => {
                    let mut matching = Vec::new();
                    for part in part.split(',') {
                        match part.strip_prefix("priority=") {
                            Some(priority) => row.priority = priority.parse().ok()?,
                            None => matching.push(part),
                        }
                    }
                    row.matching = matching.join(",");
                }
            }
        }
        Some(row)
    }
}

impl Ovs {
    /// Every flow of a bridge, in the switch's order.
    ///
    /// # Errors
    /// When the bridge does not answer.
    pub fn flow_rows(&self, bridge: &str) -> Result<Vec<FlowRow>> {
        let text = self.of14("dump-flows", bridge, &[])?;
        let lines = text.lines().filter(|line| line.contains("actions="));
        lines.map(|line| FlowRow::read(line).with_context(|| format!("a flow: {line}"))).collect()
    }

    /// Every flow of a bridge as text without what is counted, sorted.
    ///
    /// # Errors
    /// As [`Ovs::flow_rows`].
    pub fn flow_texts(&self, bridge: &str) -> Result<Vec<String>> {
        let text = self.of14("dump-flows", bridge, &["--no-stats"])?;
        let lines = text.lines().map(str::trim).filter(|line| line.contains("actions="));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    /// Runs `ovs-ofctl COMMAND` on a bridge over its management socket, which a bridge has whose controller is another.
    ///
    /// # Errors
    /// When it fails.
    pub fn of14(&self, command: &str, bridge: &str, more: &[&str]) -> Result<String> {
        let socket = format!("unix:{}", self.run_directory().join(format!("{bridge}.mgmt")).display());
        let mut arguments = vec!["-O", "OpenFlow14", command, socket.as_str()];
        arguments.extend(more);
        self.ofctl(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read() {
        let line = " cookie=0xab, duration=1.5s, table=40, n_packets=7, n_bytes=8, idle_age=0, \
                    priority=100,metadata=0x1,dl_dst=22:52:26:00:00:0b actions=set_field:0x1->reg6,goto_table:60";
        let row = FlowRow::read(line).unwrap();
        assert_eq!((row.cookie, row.duration, row.packets), (0xab, 1.5, 7));
        assert_eq!(row.identity(), (40, 100, "metadata=0x1,dl_dst=22:52:26:00:00:0b"));
        assert_eq!(row.actions, "set_field:0x1->reg6,goto_table:60");
        let row = FlowRow::read(" cookie=0x0, duration=1s, table=0, n_packets=0, n_bytes=0, actions=drop").unwrap();
        assert_eq!(row.identity(), (0, 0x8000, ""));
    }
}
