//! Reading octets with a position, so that an error can name the octet that is wrong; and the padding and lengths
//! of what is written. What the octets mean is not known here.

use bytes::{BufMut, BytesMut};

use crate::{DecodeError, Fault};

/// Octets yet to be read, and where they lie in what the caller was given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which errors call `what`.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Reader { bytes, offset: 0, what }
    }

    /// What is yet to be read.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Octets yet to be read.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all is read.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// An error at the next octet.
    pub(crate) fn error(&self, fault: Fault) -> DecodeError {
        DecodeError { what: self.what, offset: self.offset, fault }
    }

    /// An error about a field of this value that ends before the next octet, `width` octets wide.
    pub(crate) fn bad(&self, width: usize, name: &'static str, value: impl Into<u64>) -> DecodeError {
        let offset = self.offset.saturating_sub(width);
        DecodeError { what: self.what, offset, fault: Fault::Value { name, value: value.into() } }
    }

    /// The next `count` octets.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.bytes.split_at_checked(count) else {
            return Err(self.error(Fault::Truncated { need: count, have: self.bytes.len() }));
        };
        self.bytes = tail;
        self.offset += count;
        Ok(head)
    }

    /// The next `count` octets, as a reader of their own that ends with them.
    pub(crate) fn part(&mut self, count: usize) -> Result<Reader<'a>, DecodeError> {
        let offset = self.offset;
        Ok(Reader { bytes: self.take(count)?, offset, what: self.what })
    }

    /// Leaves out `count` octets.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), DecodeError> {
        self.take(count).map(drop)
    }

    /// The next `N` octets.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, tail)) = self.bytes.split_first_chunk::<N>() else {
            return Err(self.error(Fault::Truncated { need: N, have: self.bytes.len() }));
        };
        self.bytes = tail;
        self.offset += N;
        Ok(*head)
    }

    /// What is left of a structure of `length` octets, of which `read` were read.
    pub(crate) fn rest_of(&mut self, length: usize, read: usize) -> Result<Reader<'a>, DecodeError> {
        let Some(left) = length.checked_sub(read) else { return Err(self.error(Fault::Length(length))) };
        self.part(left)
    }

    /// A text in a field of `N` octets, up to its first NUL.
    pub(crate) fn string<const N: usize>(&mut self) -> Result<String, DecodeError> {
        let octets = self.array::<N>()?;
        let text = octets.split(|octet| *octet == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// An octet.
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[octet]| octet)
    }

    /// Two octets.
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four octets.
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight octets.
    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Sixteen octets.
    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_be_bytes)
    }

    /// How many structures seem to follow, whose lengths are `at` octets behind their begins: so much room is wanted
    /// for them. No more than there are octets for, whatever the lengths say.
    pub(crate) fn structures(&self, at: usize) -> usize {
        let mut rest = self.bytes;
        let mut count = 0;
        while let Some(length) = rest.get(at..at + 2) {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            rest = rest.get(length.max(8)..).unwrap_or_default();
            count += 1;
        }
        count
    }

    /// Cuts off the structure that begins here, whose length is the 16 bits `at` octets behind its begin. It is at
    /// least `least` long and a multiple of eight.
    pub(crate) fn structure(&mut self, at: usize, least: usize) -> Result<Reader<'a>, DecodeError> {
        let mut peek = *self;
        peek.skip(at)?;
        let length = usize::from(peek.u16()?);
        if length < least || !length.is_multiple_of(8) {
            let offset = self.offset + at;
            return Err(DecodeError { what: self.what, offset, fault: Fault::Length(length) });
        }
        self.part(length)
    }
}

/// Reads structures one after the other to the end of `bytes`, which errors call `what`.
pub(crate) fn entries<T>(
    bytes: &[u8],
    what: &'static str,
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut reader = Reader::new(bytes, what);
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push(read(&mut reader)?);
    }
    Ok(entries)
}

/// Writes zeros until what was written since `start` is a multiple of eight octets.
pub(crate) fn pad(out: &mut BytesMut, start: usize) {
    let length = out.len() - start;
    out.put_bytes(0, length.next_multiple_of(8) - length);
}

/// Pads what was written since `start` and writes its length into the 16 bits `at` octets behind. A message is at
/// most 64 KiB, so is whatever has a length in one: what is longer gets the greatest length, which no switch takes.
pub(crate) fn finish(out: &mut BytesMut, start: usize, at: usize) {
    pad(out, start);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start + at..start + at + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}
