//! OpenFlow messages and what is in them: what is read is written so that it is read the same, and can be shown.

use bytes::{Bytes, BytesMut};
use flows::message::{FlowUpdate, GroupStats, Message, MeterStats, MultipartKind, Port, PortStats, TableStats};
use flows::{DecodeError, Flow, FlowStats, Frames, Group, Meter};

use super::presentable;

/// The first message of a stream.
fn first(stream: &[u8]) -> Option<Result<Message, DecodeError>> {
    let mut frames = Frames::default();
    frames.extend(stream);
    let (header, body) = frames.next_message().ok()??;
    Some(Message::decode(header, &body))
}

/// Reads entries, and what was read once more.
fn entries<T: PartialEq + std::fmt::Debug>(
    body: &[u8],
    decode_all: impl Fn(&[u8]) -> Result<Vec<T>, DecodeError>,
    encode: impl Fn(&T, &mut BytesMut),
    show: impl Fn(&T),
) {
    match decode_all(body) {
        Ok(entries) => {
            let mut out = BytesMut::new();
            entries.iter().for_each(|entry| encode(entry, &mut out));
            entries.iter().for_each(show);
            assert_eq!(decode_all(&out), Ok(entries), "entries are others when written again");
        }
        Err(error) => presentable(&error),
    }
}

/// One entry after the other.
fn each<T>(decode: impl Fn(&mut &[u8]) -> Result<T, DecodeError>) -> impl Fn(&[u8]) -> Result<Vec<T>, DecodeError> {
    move |mut body| {
        let mut entries = Vec::new();
        while !body.is_empty() {
            let before = body.len();
            entries.push(decode(&mut body)?);
            assert!(body.len() < before, "an entry of no octets");
        }
        Ok(entries)
    }
}

/// A flow that came from a switch has a text, and what the text says has the same.
fn flow_text(flow: &Flow) {
    let text = flow.to_string();
    if let Ok(again) = text.parse::<Flow>() {
        assert_eq!(again.to_string(), text, "a text changes when it is read");
    }
}

fn reply(kind: MultipartKind, body: &Bytes) {
    match kind {
        MultipartKind::FLOW => {
            entries(body, FlowStats::decode_all, FlowStats::encode, |stats| flow_text(&stats.flow));
        }
        MultipartKind::FLOW_MONITOR => entries(body, FlowUpdate::decode_all, FlowUpdate::encode, |_| {}),
        MultipartKind::GROUP_DESC => entries(body, each(Group::decode), Group::encode, |group| drop(group.to_string())),
        MultipartKind::METER_CONFIG => {
            entries(body, each(Meter::decode), Meter::encode, |meter| drop(meter.to_string()));
        }
        MultipartKind::GROUP => entries(body, GroupStats::decode_all, GroupStats::encode, |_| {}),
        MultipartKind::METER => entries(body, MeterStats::decode_all, MeterStats::encode, |_| {}),
        MultipartKind::PORT_DESC => entries(body, Port::decode_all, Port::encode, |_| {}),
        MultipartKind::PORT_STATS => entries(body, PortStats::decode_all, PortStats::encode, |_| {}),
        MultipartKind::TABLE => entries(body, TableStats::decode_all, TableStats::encode, |_| {}),
        _ => {}
    }
}

pub(crate) fn check(data: &[u8]) -> bool {
    let message = match first(data) {
        Some(Ok(message)) => message,
        Some(Err(error)) => {
            presentable(&error);
            return false;
        }
        None => return false,
    };
    let mut again = BytesMut::new();
    message.encode(7, &mut again).expect("what fits into a short input fits into a message");
    assert_eq!(first(&again), Some(Ok(message.clone())), "a message is another when written again");
    match &message {
        Message::MultipartReply { kind, body, .. } => reply(*kind, body),
        Message::FlowMod(change) => flow_text(&change.flow),
        Message::GroupMod(change) => drop(change.group.to_string()),
        Message::MeterMod(change) => drop(change.meter.to_string()),
        Message::RequestForward(forward) => {
            if let Err(error) = forward.request() {
                presentable(&error);
            }
        }
        Message::Error(error) => presentable(error),
        _ => {}
    }
    true
}
