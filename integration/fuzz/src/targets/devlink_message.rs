//! What the kernel says over generic netlink: notifications of devlink, which are the same when they are written and read again;
//! and answers.

use devlink::{DeviceInfo, Eswitch, Event, Features};

use super::{choice, presentable};

/// The family that a datagram is of: that of its first message. Those below are no family's (`NLMSG_MIN_TYPE`).
fn family(datagram: &[u8]) -> u16 {
    let kind = datagram.get(4..6).and_then(|kind| kind.first_chunk()).map_or(0, |kind| u16::from_ne_bytes(*kind));
    kind.max(16)
}

fn events(datagram: &[u8]) -> bool {
    let family = family(datagram);
    let mut accepted = false;
    for event in Event::decode(family, datagram) {
        match event {
            Ok(event) => {
                let again: Vec<_> = Event::decode(family, &event.encode(family)).collect();
                assert_eq!(again, [Ok(event)]);
                accepted = true;
            }
            Err(error) => presentable(&error),
        }
    }
    accepted
}

/// Whether there is something in an answer. `struct nlmsghdr` and `struct genlmsghdr` come before its attributes.
fn said<T: Default + PartialEq, E: std::fmt::Display>(answer: Result<T, E>) -> bool {
    match answer {
        Ok(answer) => answer != T::default(),
        Err(error) => {
            presentable(&error);
            false
        }
    }
}

pub(crate) fn check(data: &[u8]) -> bool {
    let (what, datagram) = choice(data);
    let attributes = datagram.get(20..).unwrap_or_default();
    match what {
        b'f' => {
            let features = Features::decode(attributes);
            if let Ok(features) = &features {
                let sets = [&features.hw, &features.wanted, &features.active, &features.nochange];
                assert!(sets.iter().all(|set| set.is_subset(&features.known)));
            }
            said(features)
        }
        b'i' => said(DeviceInfo::decode(attributes)),
        b's' => said(Eswitch::decode(attributes)),
        _ => events(datagram),
    }
}
