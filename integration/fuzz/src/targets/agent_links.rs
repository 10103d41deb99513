//! What the kernel says of links: any sequence of rtnetlink messages gives a table in which every link is once.

use std::collections::BTreeSet;

use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use vifd::backend::links::table::{LinkTable, read, speaks_of_a_link};

/// `struct nlmsghdr` begins with the length, and messages are aligned to four octets (`linux/netlink.h`).
fn messages(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*data.first_chunk()?)).ok()?;
        let message = data.get(..length).filter(|message| message.len() >= 16)?;
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

pub(crate) fn check(data: &[u8]) -> bool {
    let mut table = LinkTable::default();
    let mut accepted = false;
    for message in messages(data) {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else { continue };
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) if speaks_of_a_link(&message) => {
                let Some(link) = read(&message) else { continue };
                accepted = true;
                table.seen(link.clone());
                assert_eq!(table.by_name().get(&link.name).map(AsRef::as_ref), Some(&link));
                assert!(!table.seen(link), "the same again is no news");
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) if speaks_of_a_link(&message) => {
                let index = message.header.index;
                table.gone(index);
                assert!(!table.gone(index), "gone twice");
                assert!(table.by_name().values().all(|link| link.index != index));
            }
            _ => {}
        }
        let indices: BTreeSet<u32> = table.by_name().values().map(|link| link.index).collect();
        assert_eq!(indices.len(), table.by_name().len(), "a link has one name");
        assert!(table.by_name().iter().all(|(name, link)| *name == link.name));
    }
    accepted
}
