//! Cutting a stream into JSON texts: how it arrives changes nothing, limits hold, nothing is lost on the way.

use ovsdb::framing::{FramingError, Limits, Splitter};

use super::{choice, presentable};

/// The messages of a stream that arrives in pieces of `piece` bytes, and how it ended.
fn split(stream: &[u8], piece: usize, limits: Limits) -> (Vec<Vec<u8>>, Result<(), FramingError>) {
    let mut splitter = Splitter::new(limits);
    let mut messages = Vec::new();
    for bytes in stream.chunks(piece) {
        splitter.buffer().extend_from_slice(bytes);
        loop {
            match splitter.next_message() {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
        assert!(splitter.buffer().len() <= limits.max_message, "more is kept than a message may have");
    }
    (messages, Ok(()))
}

pub(crate) fn check(data: &[u8]) -> bool {
    let (choice, stream) = choice(data);
    let max_message = 16 << (choice % 8);
    let max_depth = 1 + usize::from(choice / 8);
    let limits = Limits { max_message, max_depth, max_values: max_message / 4, ..Limits::default() };
    let (whole, ended) = split(stream, stream.len().max(1), limits);
    for piece in [1, 2, 7, usize::from(choice) + 1] {
        // A message that breaks a limit may be found out earlier or later, as its bytes come.
        let (cut, cut_ended) = split(stream, piece, limits);
        assert_eq!(cut, whole, "in pieces of {piece}");
        assert_eq!(cut_ended.is_ok(), ended.is_ok(), "in pieces of {piece}");
    }
    let mut rest = stream;
    for message in &whole {
        assert!(message.len() <= limits.max_message);
        assert!(message.split(|byte| *byte == b',').count() <= limits.max_values + 1);
        rest = rest.trim_ascii_start().strip_prefix(message.as_slice()).expect("messages are the stream, cut");
    }
    if let Err(error) = &ended {
        presentable(error);
    }
    !whole.is_empty()
}
