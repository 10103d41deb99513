//! Answers that are too long to be held: the result is handed on line by line while it comes. A dump of a hundred thousand
//! flows is fifty megabytes in one JSON string.

use std::ops::ControlFlow;

/// Words of a refusal that are kept, octets.
const REFUSAL: usize = 8000;
/// Longest name of a member that means anything.
const LONGEST_NAME: usize = 16;

/// Where in the answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the brace.
    Outside,
    /// In the object, between values.
    Object,
    /// In a value that is no string, so deep.
    Other(usize),
    /// In the name of a member.
    Name,
    /// In a string that is not looked at, so deep.
    Skipped(usize),
    /// In `result`.
    Result,
    /// In `error`.
    Error,
    /// Behind the last brace.
    Done,
}

/// What is read of an answer, octet by octet: `{"id":0,"result":"line\nline\n","error":null}`, in any order.
#[derive(Debug)]
pub(super) struct Answer {
    place: Place,
    /// After the colon of a member.
    at_value: bool,
    name: Vec<u8>,
    escape: Escape,
    line: Vec<u8>,
    longest: usize,
    overlong: bool,
    error: Vec<u8>,
    had_result: bool,
    had_error: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    /// After a backslash.
    Begun,
    /// In `\uXXXX`: digits so far, and their value.
    Unicode(u8, u32),
}

/// How an answer went on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to come.
    More,
    /// That was all; every line was handed on.
    Whole,
    /// Whoever took the lines has had enough.
    Enough,
    /// ovs-vswitchd refuses, in its words.
    Refused(String),
    /// It is no such answer.
    Garbled(&'static str),
}

impl Answer {
    /// Lines longer than this are none.
    pub(super) fn new(longest: usize) -> Self {
        Answer {
            place: Place::Outside,
            at_value: false,
            name: Vec::new(),
            escape: Escape::None,
            line: Vec::new(),
            longest,
            overlong: false,
            error: Vec::new(),
            had_result: false,
            had_error: false,
        }
    }

    /// Takes in what came next, and hands on the lines that end in it: `None` for one that is too long.
    pub(super) fn take(&mut self, bytes: &[u8], sink: &mut impl FnMut(Option<&str>) -> ControlFlow<()>) -> Progress {
        let mut rest = bytes;
        while let [byte, ..] = *rest {
            if matches!(self.place, Place::Result) && self.escape == Escape::None {
                // Most of it by far.
                let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).unwrap_or(rest.len());
                if plain > 0 {
                    self.push(&rest[..plain]);
                    rest = &rest[plain..];
                    continue;
                }
            }
            rest = &rest[1..];
            match self.step(byte, sink) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Progress::Enough,
                Err(reason) => return Progress::Garbled(reason),
            }
            if self.place == Place::Done {
                return self.end();
            }
        }
        Progress::More
    }

    fn end(&self) -> Progress {
        match (self.had_error, self.had_result) {
            (true, _) => Progress::Refused(String::from_utf8_lossy(&self.error).trim().to_owned()),
            (false, true) => Progress::Whole,
            (false, false) => Progress::Garbled("it answered neither a result nor an error"),
        }
    }

    fn step(
        &mut self,
        byte: u8,
        sink: &mut impl FnMut(Option<&str>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, &'static str> {
        match self.place {
            Place::Outside => match byte {
                b'{' => self.place = Place::Object,
                _ if byte.is_ascii_whitespace() => {}
                _ => return Err("it begins with no brace"),
            },
            Place::Object => self.between(byte)?,
            Place::Other(depth) => match byte {
                b'[' | b'{' => self.place = Place::Other(depth + 1),
                b']' | b'}' if depth > 1 => self.place = Place::Other(depth - 1),
                b']' | b'}' if depth == 1 => self.place = Place::Object,
                b'}' => self.place = Place::Done,
                b',' if depth == 0 => (self.place, self.at_value) = (Place::Object, false),
                b'"' => self.place = Place::Skipped(depth),
                _ => {}
            },
            Place::Name | Place::Skipped(_) | Place::Result | Place::Error => {
                let text = match (self.escape, byte) {
                    (Escape::None, b'"') => {
                        return Ok(self.close(sink));
                    }
                    (Escape::None, b'\\') => {
                        self.escape = Escape::Begun;
                        return Ok(ControlFlow::Continue(()));
                    }
                    (Escape::None, other) => return Ok(self.text(&[other], sink)),
                    (Escape::Begun, b'u') => {
                        self.escape = Escape::Unicode(0, 0);
                        return Ok(ControlFlow::Continue(()));
                    }
                    (Escape::Begun, other) => char::from(match other {
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        b'b' => 8,
                        b'f' => 12,
                        other => other,
                    }),
                    (Escape::Unicode(digits, value), digit) => {
                        let digit = char::from(digit).to_digit(16).ok_or("an escape has no four digits")?;
                        let value = value * 16 + digit;
                        if digits < 3 {
                            self.escape = Escape::Unicode(digits + 1, value);
                            return Ok(ControlFlow::Continue(()));
                        }
                        // Halves of what is beyond the basic plane are in no name that means anything here.
                        char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                };
                self.escape = Escape::None;
                let mut buffer = [0; 4];
                return Ok(self.text(text.encode_utf8(&mut buffer).as_bytes(), sink));
            }
            Place::Done => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Between the values of the object.
    fn between(&mut self, byte: u8) -> Result<(), &'static str> {
        match byte {
            b'"' if !self.at_value => {
                self.name.clear();
                self.place = Place::Name;
            }
            b'"' => {
                self.place = match self.name.as_slice() {
                    b"result" => Place::Result,
                    b"error" => Place::Error,
                    _ => Place::Skipped(0),
                };
                self.had_result |= self.place == Place::Result;
                self.had_error |= self.place == Place::Error;
            }
            b':' => self.at_value = true,
            b',' => self.at_value = false,
            b'}' => self.place = Place::Done,
            b'[' | b'{' if self.at_value => self.place = Place::Other(1),
            _ if byte.is_ascii_whitespace() => {}
            _ if self.at_value => self.place = Place::Other(0),
            _ => return Err("it is no JSON"),
        }
        Ok(())
    }

    /// Text within a string.
    fn text(&mut self, bytes: &[u8], sink: &mut impl FnMut(Option<&str>) -> ControlFlow<()>) -> ControlFlow<()> {
        match self.place {
            Place::Name if self.name.len() < LONGEST_NAME => self.name.extend_from_slice(bytes),
            Place::Error if self.error.len() < REFUSAL => self.error.extend_from_slice(bytes),
            Place::Result if bytes == b"\n" => return self.hand_on(sink),
            Place::Result => self.push(bytes),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > self.longest {
            self.overlong = true;
        } else {
            self.line.extend_from_slice(bytes);
        }
    }

    fn hand_on(&mut self, sink: &mut impl FnMut(Option<&str>) -> ControlFlow<()>) -> ControlFlow<()> {
        let line = String::from_utf8_lossy(&self.line);
        let flow = sink((!self.overlong).then_some(&*line));
        self.line.clear();
        self.overlong = false;
        flow
    }

    /// The end of a string.
    fn close(&mut self, sink: &mut impl FnMut(Option<&str>) -> ControlFlow<()>) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        match self.place {
            Place::Skipped(depth) if depth > 0 => {
                self.place = Place::Other(depth);
                return flow;
            }
            Place::Result if !self.line.is_empty() || self.overlong => flow = self.hand_on(sink),
            _ => {}
        }
        self.place = Place::Object;
        flow
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer in pieces of a size, read up to so many lines.
    fn read(bytes: &[u8], piece: usize, most: usize) -> (Vec<Option<String>>, Progress) {
        let (mut answer, mut lines) = (Answer::new(20), Vec::new());
        for bytes in bytes.chunks(piece) {
            let progress = answer.take(bytes, &mut |line| {
                lines.push(line.map(str::to_owned));
                if lines.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if progress != Progress::More {
                return (lines, progress);
            }
        }
        (lines, Progress::More)
    }

    fn lines(of: &[&str]) -> Vec<Option<String>> {
        of.iter().map(|line| Some((*line).to_owned())).collect()
    }

    #[test]
    fn a_result_is_handed_on_line_by_line() {
        let text = br#"{"error":null,"id":0,"result":"one\ntwo \"a\" \\ \u00e9\n\nrest"}"#;
        for piece in [1, 2, 7, 1000] {
            assert_eq!(read(text, piece, 99), (lines(&["one", "two \"a\" \\ é", "", "rest"]), Progress::Whole));
        }
        assert_eq!(read(text, 3, 2), (lines(&["one", "two \"a\" \\ é"]), Progress::Enough));
        assert_eq!(read(br#"{"id":[1,{"a":"}"}],"result":"","error":null}"#, 1, 9), (vec![], Progress::Whole));
    }

    #[test]
    fn what_is_too_long_is_no_line() {
        let text = format!("{{\"result\":\"a\\n{}\\nb\\n\"}}", "x".repeat(21));
        let expected = vec![Some("a".to_owned()), None, Some("b".to_owned())];
        assert_eq!(read(text.as_bytes(), 5, 9), (expected, Progress::Whole));
    }

    #[test]
    fn refusals_and_nonsense() {
        let refused = Progress::Refused("no such datapath".to_owned());
        assert_eq!(read(br#"{"id":0,"result":null,"error":"no such datapath\n"}"#, 4, 9), (vec![], refused));
        for (text, word) in
            [("HTTP/1.1", "brace"), (r#"{"result":null}"#, "neither"), ("{7}", "JSON"), (r#"{"a":"\uq"#, "digits")]
        {
            assert!(
                matches!(read(text.as_bytes(), 1, 9).1, Progress::Garbled(reason) if reason.contains(word)),
                "{text}"
            );
        }
        assert_eq!(read(br#"{"result":"half"#, 1, 9), (vec![], Progress::More));
    }

    proptest! {
        #[test]
        fn whatever_serde_writes_is_read(text in "[\\PC\n]{0,60}", piece in 1_usize..9, first: bool) {
            let answer = if first {
                serde_json::json!({"result": text, "id": {"error": ["\"", 1]}})
            } else {
                serde_json::json!({"aid": [[]], "error": null, "result": text})
            };
            // Characters beyond the basic plane are written as they are, so nothing is lost.
            let (mut read, mut whole) = (Vec::new(), Answer::new(1000));
            for bytes in answer.to_string().as_bytes().chunks(piece) {
                let progress = whole.take(bytes, &mut |line| {
                    read.extend(line.map(str::to_owned));
                    ControlFlow::Continue(())
                });
                prop_assert!(matches!(progress, Progress::More | Progress::Whole));
            }
            let mut expected: Vec<&str> = text.split('\n').collect();
            expected.pop_if(|last| last.is_empty());
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn anything_is_taken_in(bytes in prop::collection::vec(prop::sample::select(b"{}[]\":,\\nue01 result".to_vec()), 0..200)) {
            let _ = read(&bytes, 3, 50);
        }
    }
}
