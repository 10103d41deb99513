//! What a flow has counted, read from a switch's list without the flow itself: for those who read a hundred thousand of
//! them every few seconds.

use std::time::Duration;

use crate::DecodeError;
use crate::wire::Reader;

/// The beginning of an entry of an `OFPMP_FLOW` reply (`struct ofp_flow_stats`), up to its match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowCount<'a> {
    /// Its table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Its cookie.
    pub cookie: u64,
    /// How long it has been there.
    pub duration: Duration,
    /// Packets it matched; `u64::MAX` where the switch does not know.
    pub packet_count: u64,
    /// Octets of these packets; likewise.
    pub byte_count: u64,
    /// Its match as octets: the same ones for the same flow, as long as it is the same switch.
    pub matching: &'a [u8],
}

/// Octets before the match, and of the smallest match.
const HEAD: usize = 48 + 8;

impl<'a> FlowCount<'a> {
    /// Reads the entry at the begin of `body`, and cuts it off.
    ///
    /// # Errors
    /// There is no entry, or it is wrong; the offset is that in `body`.
    pub fn decode(body: &mut &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, "flow stats");
        let mut entry = reader.structure(0, HEAD)?;
        *body = reader.bytes();
        entry.skip(2)?;
        let table = entry.u8()?;
        entry.skip(1)?;
        let (seconds, nanoseconds) = (entry.u32()?, entry.u32()?);
        let priority = entry.u16()?;
        // Timeouts, flags, importance.
        entry.skip(10)?;
        let (cookie, packet_count, byte_count) = (entry.u64()?, entry.u64()?, entry.u64()?);
        entry.skip(2)?;
        let length = usize::from(entry.u16()?);
        let matching = entry.take(length.saturating_sub(4))?;
        let duration = Duration::new(seconds.into(), nanoseconds.min(999_999_999));
        Ok(FlowCount { table, priority, cookie, duration, packet_count, byte_count, matching })
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::FlowStats;

    #[test]
    fn counts_are_those_of_the_whole_entry() {
        let mut body = BytesMut::new();
        let all = ["table=10, priority=5,in_port=1,ip actions=output:2", "cookie=0x5 actions=drop"].map(|text| {
            FlowStats { flow: text.parse().unwrap(), duration: Duration::new(7, 5), packet_count: 3, byte_count: 294 }
        });
        all.iter().for_each(|stats| stats.encode(&mut body));
        let mut rest = &body[..];
        for stats in &all {
            let count = FlowCount::decode(&mut rest).unwrap();
            assert_eq!((count.table, count.priority), (stats.flow.table, stats.flow.priority));
            assert_eq!((count.cookie, count.duration), (stats.flow.cookie, stats.duration));
            assert_eq!((count.packet_count, count.byte_count), (3, 294));
            assert_eq!(count.matching.is_empty(), stats.flow.matching == crate::Match::default());
        }
        assert!(rest.is_empty());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &body[..];
            while FlowCount::decode(&mut rest).is_ok() {}
        }
    }
}
