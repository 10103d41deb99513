//! The header that every OpenFlow message begins with, and cutting a stream into messages (OpenFlow 1.4.1
//! specification, section 7.1.1). What is behind a header is not read here.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// `OFP_VERSION` of OpenFlow 1.4, the first version with bundles.
pub const VERSION: u8 = 0x05;

/// Octets of a header.
const LENGTH: usize = 8;

/// `struct ofp_header`.
///
/// ```text
///   0        1        2                 4                                  8
///   +--------+--------+-----------------+-----------------------------------+
///   | version| type   | length          | xid                               |
///   +--------+--------+-----------------+-----------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `OFP_VERSION`; a peer's hello carries its highest.
    pub version: u8,
    /// `OFPT_*`.
    pub kind: u8,
    /// Octets of the message, this header among them: 8 to 65,535.
    pub length: u16,
    /// What a reply repeats of its request.
    pub xid: u32,
}

/// Bytes that are no OpenFlow message: the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an OpenFlow message of {0} octets is shorter than its own header of 8")]
pub struct InvalidFrame(pub u16);

impl Header {
    /// Writes the header.
    pub fn put(&self, out: &mut BytesMut) {
        out.put_u8(self.version);
        out.put_u8(self.kind);
        out.put_u16(self.length);
        out.put_u32(self.xid);
    }

    fn get(mut bytes: &[u8]) -> Self {
        Header { version: bytes.get_u8(), kind: bytes.get_u8(), length: bytes.get_u16(), xid: bytes.get_u32() }
    }
}

/// Cuts a stream into messages. It keeps at most one message that is not complete, 64 KiB.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Where to append what was read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Takes what was read.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message: its header, and the octets behind it.
    ///
    /// # Errors
    /// The stream is no OpenFlow; every further call says so again.
    pub fn next_message(&mut self) -> Result<Option<(Header, Bytes)>, InvalidFrame> {
        let Some(bytes) = self.buffer.get(..LENGTH) else { return Ok(None) };
        let header = Header::get(bytes);
        let length = usize::from(header.length);
        if length < LENGTH {
            return Err(InvalidFrame(header.length));
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(length).freeze();
        message.advance(LENGTH);
        Ok(Some((header, message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An echo request with two octets of data.
    const ECHO: [u8; 10] = [
        0x05, // version: OpenFlow 1.4
        0x02, // type: OFPT_ECHO_REQUEST
        0x00, 0x0a, // length: 10
        0x00, 0x00, 0x00, 0x07, // xid
        0xca, 0xfe, // data
    ];

    #[test]
    fn echo_request_both_ways() {
        let header = Header { version: VERSION, kind: 2, length: 10, xid: 7 };
        let mut frames = Frames::default();
        frames.extend(&ECHO);
        assert_eq!(frames.next_message(), Ok(Some((header, Bytes::from_static(&[0xca, 0xfe])))));
        assert_eq!(frames.next_message(), Ok(None));
        let mut out = BytesMut::new();
        header.put(&mut out);
        assert_eq!(out[..], ECHO[..8]);
    }

    #[test]
    fn a_length_below_that_of_the_header_ends_the_stream() {
        let mut frames = Frames::default();
        frames.extend(&[5, 0, 0, 7, 0, 0, 0, 0, 5, 0, 0, 8]);
        assert_eq!(frames.next_message(), Err(InvalidFrame(7)));
        assert_eq!(frames.next_message(), Err(InvalidFrame(7)));
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_the_stream_is_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            cut in 1usize..20,
        ) {
            let mut stream = BytesMut::new();
            for (xid, body) in (0u32..).zip(&bodies) {
                let length = u16::try_from(LENGTH + body.len()).unwrap();
                Header { version: VERSION, kind: 2, length, xid }.put(&mut stream);
                stream.extend_from_slice(body);
            }
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for chunk in stream.chunks(cut) {
                frames.extend(chunk);
                while let Some((header, body)) = frames.next_message().unwrap() {
                    prop_assert_eq!(header.xid as usize, found.len());
                    found.push(body.to_vec());
                }
            }
            prop_assert_eq!(found, bodies);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let mut frames = Frames::default();
            frames.extend(&bytes);
            while let Ok(Some(_)) = frames.next_message() {}
        }
    }
}
