//! Cutting a stream of JSON into messages, 1.5 and 15 MB in one message, beside its floor: copying the same bytes
//! in the same pieces. `cargo bench -p vifd-benches --bench framing`

use std::fmt::Write as _;
use std::hint::black_box;

use ovsdb::framing::{Limits, Splitter};
use vifd_benches::least;

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

fn main() {
    println!("{:>12} {:>12} {:>12} {:>8}", "octets", "framing", "floor", "ratio");
    for rows in [8_000, 80_000] {
        let text = message(rows);
        assert_eq!(split(text.as_bytes()), text.len(), "the message is cut where it ends");
        let took = least(10, || black_box(split(text.as_bytes())));
        let floor = least(10, || copy(text.as_bytes()));
        println!("{:>12} {took:>12.1?} {floor:>12.1?} {:>8.1}", text.len(), took.as_secs_f64() / floor.as_secs_f64());
    }
}
