//! Reading fixed structures from bytes, with errors that say where. What the structures mean is for their own files.

use crate::{DecodeError, Fault, Match};

/// A place in bytes that are called `what` in errors.
pub(super) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub(super) fn take(&mut self, need: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.rest();
        let Some(taken) = rest.get(..need) else {
            return Err(self.error(Fault::Truncated { need, have: rest.len() }));
        };
        self.at += need;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn skip(&mut self, octets: usize) -> Result<(), DecodeError> {
        self.take(octets).map(drop)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string in a field of `N` octets, up to its first NUL.
    pub(super) fn string<const N: usize>(&mut self) -> Result<String, DecodeError> {
        let octets = self.array::<N>()?;
        let text = octets.split(|octet| *octet == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// A `struct ofp_match` with its padding.
    pub(super) fn matching(&mut self) -> Result<Match, DecodeError> {
        let from = self.at;
        self.skip(2)?;
        let length = usize::from(self.u16()?);
        self.at = from;
        let bytes = self.take(length.next_multiple_of(8))?;
        Match::decode(bytes).map_err(|error| error.behind(from))
    }

    /// Octets behind this place.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Where in the bytes it is.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// A part of `length` octets that counts from `read` octets ago, with a reader of its own for what is left of it.
    pub(super) fn part(&mut self, length: usize, read: usize) -> Result<Reader<'a>, DecodeError> {
        let Some(left) = length.checked_sub(read) else { return Err(self.error(Fault::Length(length))) };
        let from = self.at;
        self.take(left)?;
        Ok(Reader { what: self.what, bytes: self.bytes.get(..self.at).unwrap_or_default(), at: from })
    }

    pub(super) fn error(&self, fault: Fault) -> DecodeError {
        DecodeError { what: self.what, offset: self.at, fault }
    }

    /// That nothing is left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(self.error(Fault::Length(self.bytes.len()))) }
    }
}

/// Reads all entries of a multipart reply's body.
pub(super) fn entries<T>(
    what: &'static str,
    body: &[u8],
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut reader = Reader::new(what, body);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push(read(&mut reader)?);
    }
    Ok(entries)
}
