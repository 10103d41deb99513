//! OpenFlow framing: how a stream arrives changes nothing, and the frames are the stream.

use flows::{Frames, InvalidFrame};

use super::{choice, presentable};

/// The bytes of each message, headers written anew, and how the stream ended.
fn split(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, Result<(), InvalidFrame>) {
    let mut frames = Frames::default();
    let mut messages = Vec::new();
    for bytes in stream.chunks(piece) {
        frames.extend(bytes);
        loop {
            match frames.next_message() {
                Ok(Some((header, body))) => {
                    let mut message = bytes_of(header);
                    assert_eq!(usize::from(header.length), message.len() + body.len());
                    message.extend_from_slice(&body);
                    messages.push(message);
                }
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    (messages, Ok(()))
}

fn bytes_of(header: flows::Header) -> Vec<u8> {
    let mut bytes = vec![header.version, header.kind];
    bytes.extend(header.length.to_be_bytes());
    bytes.extend(header.xid.to_be_bytes());
    bytes
}

pub(crate) fn check(data: &[u8]) -> bool {
    let (choice, stream) = choice(data);
    let (whole, ended) = split(stream, stream.len().max(1));
    for piece in [1, 3, usize::from(choice) + 1] {
        assert_eq!(split(stream, piece), (whole.clone(), ended), "in pieces of {piece}");
    }
    assert!(stream.starts_with(&whole.concat()), "the frames are the stream");
    if let Err(error) = &ended {
        presentable(error);
    }
    !whole.is_empty()
}
