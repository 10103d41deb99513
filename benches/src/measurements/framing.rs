//! Cutting a stream of JSON into messages, beside its floor: copying the same octets in the same pieces.

use std::fmt::Write as _;
use std::hint::black_box;

use anyhow::{Result, ensure};
use ovsdb::framing::{Limits, Splitter};

use super::stage::Stage;
use crate::timing::least;
use crate::{Chart, Finding, Role, Unit};

/// What one read of a socket brings.
const PIECE: usize = 64 * 1024;

/// A message such as a snapshot of `rows` rows is.
fn message(rows: usize) -> String {
    let mut text = String::from("{\"id\":1,\"error\":null,\"result\":{\"Interface\":{");
    for row in 0..rows {
        let comma = if row == 0 { "" } else { "," };
        let _ = write!(
            text,
            "{comma}\"{row:036}\":{{\"initial\":{{\"name\":\"tap{row}\",\"external_ids\":[\"map\",[[\"iface-id\",\"{row:036}\"],\
             [\"attached-mac\",\"52:54:00:00:00:01\"],[\"quoted\",\"a \\\"b\\\" {{c\"]]]}}}}"
        );
    }
    text.push_str("}}}");
    text
}

fn split(text: &[u8]) -> usize {
    let mut splitter = Splitter::new(Limits::default());
    let mut found = 0;
    for piece in text.chunks(PIECE) {
        splitter.buffer().extend_from_slice(piece);
        while let Ok(Some(message)) = splitter.next_message() {
            found += message.len();
        }
    }
    found
}

fn copy(text: &[u8]) -> usize {
    let mut buffer = Vec::new();
    for piece in text.chunks(PIECE) {
        buffer.extend_from_slice(piece);
    }
    black_box(&buffer).len()
}

/// Measures.
pub(super) fn measure(stage: &mut Stage) -> Result<Finding> {
    let scale = stage.scale;
    let mut finding = Finding::new(
        "framing",
        "Cutting a stream of JSON into messages",
        "One message of some size, in pieces as reads of a socket bring them; the least of ten runs. The floor copies
         the same pieces into one buffer. Within this process, without a socket.",
    );
    let mut chart = Chart::new("framing", "Cutting a stream of JSON", "rows in the message", Unit::Seconds);
    for rows in scale.pick(&[800u32, 8_000, 80_000][..], &[800, 8_000]) {
        let text = message(*rows as usize);
        ensure!(split(text.as_bytes()) == text.len(), "the message is cut elsewhere than at its end");
        let took = least(10, || black_box(split(text.as_bytes())));
        let floor = least(10, || copy(text.as_bytes()));
        chart.add("floor", Role::Floor, f64::from(*rows), vec![floor.as_secs_f64()]);
        chart.add("vifd", Role::Ours, f64::from(*rows), vec![took.as_secs_f64()]);
    }
    finding.notes.push("80,000 rows are 15 MB: a host of 25,000 ports.".to_owned());
    finding.charts.push(chart);
    Ok(finding)
}
