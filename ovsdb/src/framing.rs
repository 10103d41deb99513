//! Cutting a byte stream into JSON texts: OVSDB puts JSON-RPC messages one after another with nothing in
//! between (RFC 7047 section 4). No JSON is validated here; [`crate::message`] parses what comes out.
//!
//! The scan remembers where it stopped, so every byte is looked at once however the stream is cut, and a
//! message leaves the buffer without being copied.

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr_iter, memchr2};

/// What a peer may ask of us before we give up on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message. The whole of a database arrives as one.
    pub max_message: usize,
    /// Arrays and objects within each other. `serde_json` takes no more than 127.
    pub max_depth: usize,
    /// Values in one message, counted by their commas: `0,` is two bytes on the wire and dozens in memory.
    pub max_values: usize,
    /// Rows that the monitored tables have in all.
    pub max_rows: usize,
}

impl Default for Limits {
    /// 256 MiB, 100 deep, 16 Mi values, 4 Mi rows. OVSDB's own messages are about ten deep, and their values a
    /// dozen bytes long.
    fn default() -> Self {
        Self { max_message: 256 << 20, max_depth: 100, max_values: 16 << 20, max_rows: 4 << 20 }
    }
}

/// Bytes that cannot be the beginning of a JSON-RPC message within the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Something other than an object where a message should begin.
    #[error("a message begins with byte {0:#04x} instead of {{")]
    NotAnObject(u8),
    /// See [`Limits::max_message`].
    #[error("a message exceeds {0} bytes")]
    TooLong(usize),
    /// See [`Limits::max_depth`].
    #[error("a message nests deeper than {0}")]
    TooDeep(usize),
    /// See [`Limits::max_values`].
    #[error("a message has more than {0} values")]
    TooMany(usize),
}

/// A buffer that held a message longer than this is given back instead of kept for the next one.
const KEEP: usize = 1 << 20;

/// The splitter. Fill [`Splitter::buffer`], then call [`Splitter::next_message`] until it gives `None`.
#[derive(Debug)]
pub struct Splitter {
    limits: Limits,
    buffer: BytesMut,
    /// Bytes at the front of `buffer` that were looked at.
    scanned: usize,
    depth: usize,
    in_string: bool,
    /// The last byte looked at was a backslash in a string.
    escaped: bool,
    /// The buffer has grown beyond [`KEEP`].
    grown: bool,
}

impl Splitter {
    /// An empty splitter.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: BytesMut::new(), scanned: 0, depth: 0, in_string: false, escaped: false, grown: false }
    }

    /// Where to append what was read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next complete message, or `None` until more bytes are there.
    ///
    /// # Errors
    /// See [`FramingError`]. There is no way on after one: the connection is to be closed.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FramingError> {
        if self.depth == 0 {
            let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.buffer.advance(blank);
            match self.buffer.first() {
                None => {
                    if std::mem::take(&mut self.grown) {
                        self.buffer = BytesMut::new();
                    }
                    return Ok(None);
                }
                Some(b'{') => {}
                Some(other) => return Err(FramingError::NotAnObject(*other)),
            }
        }
        let max_message = self.limits.max_message;
        let complete = self.scan()?;
        if complete.unwrap_or(self.buffer.len()) > max_message {
            return Err(FramingError::TooLong(max_message));
        }
        let Some(len) = complete else { return Ok(None) };
        // The count is a fraction of what parsing costs; and a message cannot have more commas than bytes.
        let max_values = self.limits.max_values;
        if len > max_values && memchr_iter(b',', &self.buffer[..len]).count() > max_values {
            return Err(FramingError::TooMany(max_values));
        }
        self.scanned = 0;
        self.grown |= len > KEEP;
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    /// Goes on from where it stopped; the length of the message when its last byte is there.
    fn scan(&mut self) -> Result<Option<usize>, FramingError> {
        let bytes = &self.buffer[..];
        let mut at = self.scanned;
        while let Some(&byte) = bytes.get(at) {
            if self.escaped {
                self.escaped = false;
                at += 1;
            } else if self.in_string {
                let Some(skip) = memchr2(b'"', b'\\', &bytes[at..]) else {
                    at = bytes.len();
                    break;
                };
                at += skip;
                self.escaped = bytes[at] == b'\\';
                self.in_string = self.escaped;
                at += 1;
            } else {
                at += 1;
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => {
                        self.depth += 1;
                        if self.depth > self.limits.max_depth {
                            return Err(FramingError::TooDeep(self.limits.max_depth));
                        }
                    }
                    b'}' | b']' => {
                        // The first byte opened an object, so depth is at least one here.
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Ok(Some(at));
                        }
                    }
                    _ => {}
                }
            }
        }
        self.scanned = at;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `chunks` one by one and collects what comes out.
    fn split(limits: Limits, chunks: &[&[u8]]) -> Result<Vec<Bytes>, FramingError> {
        let mut splitter = Splitter::new(limits);
        let mut messages = Vec::new();
        for chunk in chunks {
            splitter.buffer().extend_from_slice(chunk);
            while let Some(message) = splitter.next_message()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_are_found_at_every_cut() {
        let texts = [r#"{"a":"}\"{\\","b":[{},"]"]}"#, r#"{"é":"\\\\"}"#, "{}", r#"{"x":[[[["\u007b"]]]]}"#];
        let stream = format!(" {}\n\t{}{}\r\n{}", texts[0], texts[1], texts[2], texts[3]);
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let (a, rest) = stream.as_bytes().split_at(first);
                let (b, c) = rest.split_at(second - first);
                let messages = split(Limits::default(), &[a, b, c]).unwrap();
                assert_eq!(messages, texts.map(|text| Bytes::from(text.to_owned())));
            }
        }
    }

    #[test]
    fn limits_hold_before_the_message_is_complete() {
        let limits = Limits { max_message: 10, max_depth: 3, ..Limits::default() };
        assert_eq!(split(limits, &[b"{\"a\":", b"12345}"]), Err(FramingError::TooLong(10)));
        assert_eq!(split(limits, &[b"{\"a\":", b"1234"]).unwrap().len(), 0);
        assert_eq!(split(limits, &[b"{\"a\":", b"1234}"]).unwrap().len(), 1);
        assert_eq!(split(limits, &[b"{[{}]}{}"]).unwrap().len(), 2);
        assert_eq!(split(limits, &[b"{[{["]), Err(FramingError::TooDeep(3)));
        let few = Limits { max_values: 2, ..Limits::default() };
        assert_eq!(split(few, &[b"{\"a\":[1,2,3]}"]).unwrap().len(), 1);
        assert_eq!(split(few, &[b"{\"a\":[1,2,", b"3,4]}"]), Err(FramingError::TooMany(2)));
        // Two short messages that arrive together are not one long one.
        assert_eq!(split(limits, &[b"{\"a\":1234}{\"b\":1234}"]).unwrap().len(), 2);
    }

    #[test]
    fn bytes_are_looked_at_once_and_memory_is_given_back() {
        let long = format!("{{\"a\":\"{}\"}}", "x[\\\"".repeat(2 << 20));
        let mut splitter = Splitter::new(Limits::default());
        for piece in long.as_bytes().chunks(1000) {
            splitter.buffer().extend_from_slice(piece);
            let before = splitter.scanned;
            let message = splitter.next_message().unwrap();
            // Each call goes on where the last one stopped, so all of them together are one pass.
            assert!(message.is_some() || splitter.scanned == before + piece.len());
        }
        assert!(splitter.buffer().is_empty());
        assert_eq!(splitter.next_message(), Ok(None));
        assert_eq!(splitter.buffer().capacity(), 0);
    }

    #[test]
    fn a_message_is_an_object() {
        for (bytes, first) in [(&b"[1]"[..], b'['), (b" x", b'x'), (b"{}}", b'}'), (b"\xff", 0xff), (b"\0", 0)] {
            assert_eq!(split(Limits::default(), &[bytes]), Err(FramingError::NotAnObject(first)));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(prop_oneof![
            4 => prop::sample::select(&b"{}[]\"\\ ,:1"[..]), 1 => any::<u8>()], 0..40), 0..8)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let _ = split(Limits { max_message: 64, max_depth: 4, max_values: 8, ..Limits::default() }, &chunks);
        }

        #[test]
        fn how_a_stream_is_cut_changes_nothing(bytes in prop::collection::vec(
            prop::sample::select(&b"{{{}}}[]\"\\ ,x"[..]), 0..200), cuts in prop::collection::vec(0_usize..200, 0..6)) {
            let whole = split(Limits::default(), &[&bytes]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(split(Limits::default(), &chunks), whole);
        }
    }
}
