//! Flows, groups and meters as `ovs-ofctl` writes them: what is understood survives as octets, and its own text says
//! the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use bytes::BytesMut;
use flows::{
    Flow, FlowCommand, FlowMod, Group, GroupCommand, GroupMod, Match, Meter, MeterCommand, MeterMod, TextError,
};

use super::presentable;

/// Reads a text, as octets too.
fn read<T: FromStr<Err = TextError> + Clone + Debug + Display + PartialEq>(
    text: &str,
    through_octets: impl Fn(&T) -> T,
) -> bool {
    let read = match text.parse::<T>() {
        Ok(read) => read,
        Err(error) => {
            presentable(&error);
            return false;
        }
    };
    assert_eq!(through_octets(&read), read, "octets say another thing than the text {text:?}");
    let shown = read.to_string();
    if let Ok(again) = shown.parse::<T>() {
        assert_eq!(again.to_string(), shown, "a text changes when it is read");
    }
    true
}

fn matching(matching: &Match) -> Match {
    let mut out = BytesMut::new();
    matching.encode(&mut out);
    Match::decode(&out).expect("a match that was written")
}

fn flow(flow: &Flow) -> Flow {
    let mut out = BytesMut::new();
    FlowMod::new(FlowCommand::Add, flow.clone()).encode(&mut out);
    FlowMod::decode(&out).expect("a flow that was written").flow
}

fn group(group: &Group) -> Group {
    let mut out = BytesMut::new();
    GroupMod { command: GroupCommand::Add, group: group.clone() }.encode(&mut out);
    GroupMod::decode(&out).expect("a group that was written").group
}

fn meter(meter: &Meter) -> Meter {
    let mut out = BytesMut::new();
    MeterMod { command: MeterCommand::Add, meter: meter.clone() }.encode(&mut out);
    MeterMod::decode(&out).expect("a meter that was written").meter
}

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let text = text.trim_end_matches('\n');
    // Without short cuts: a text may be several things.
    read(text, matching) | read(text, flow) | read(text, group) | read(text, meter)
}
