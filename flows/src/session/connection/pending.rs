//! Requests that are not answered yet, by transaction id, and the parts of their answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;

use crate::message::{Kind, Message, MultipartKind};
use crate::session::{CallError, Reply};

/// A request of ours that is not answered yet.
pub(super) enum Pending {
    Features,
    Config,
    /// A request that is not answered if it is granted.
    Setup(&'static str),
    Echo,
    Call {
        answer: Kind,
        reply: Reply<Message>,
    },
    Multipart {
        kind: MultipartKind,
        parts: Vec<Bytes>,
        /// Octets of the parts.
        size: usize,
        reply: Reply<Vec<Bytes>>,
    },
    /// A flow monitor whose first flows are on their way; the reply until the first part of them.
    Watch {
        reply: Option<Reply<()>>,
    },
    /// Whoever asked is gone or has an answer already.
    Ignored,
}

impl Pending {
    /// Tells whoever waits. One that went away does not mind.
    pub(super) fn fail(self, error: CallError) {
        match self {
            Self::Call { reply, .. } => drop(reply.send(Err(error))),
            Self::Multipart { reply, .. } => drop(reply.send(Err(error))),
            Self::Watch { reply: Some(reply) } => drop(reply.send(Err(error))),
            Self::Watch { reply: None }
            | Self::Features
            | Self::Config
            | Self::Setup(_)
            | Self::Echo
            | Self::Ignored => {}
        }
    }
}

/// To what a part of a multipart reply belongs.
pub(super) enum Part {
    /// To nothing.
    Unknown,
    /// To a request, which has it.
    Taken,
    /// To a flow monitor.
    OfMonitor(Bytes),
}

/// The requests of one connection.
#[derive(Default)]
pub(super) struct Requests {
    pending: HashMap<u32, (Pending, u64)>,
    last_id: u32,
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether no answer is due, but to an echo.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.values().all(|(pending, _)| matches!(pending, Pending::Echo))
    }

    /// A transaction id that is not in use. Never 0, which messages have that the switch sends by itself.
    pub(super) fn next_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.pending.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// The first of so many transaction ids one after the other.
    pub(super) fn next_ids(&mut self, count: u32) -> u32 {
        let first = self.last_id.checked_add(1).filter(|first| first.checked_add(count).is_some()).unwrap_or(1);
        self.last_id = first.saturating_add(count - 1);
        first
    }

    /// Remembers a request that begins at this octet of the stream.
    pub(super) fn insert(&mut self, id: u32, pending: Pending, first_byte: u64) {
        self.pending.insert(id, (pending, first_byte));
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Pending> {
        self.pending.remove(&id).map(|(pending, _)| pending)
    }

    pub(super) fn forget_setup(&mut self) {
        self.pending.retain(|_, (pending, _)| !matches!(pending, Pending::Setup(_)));
    }

    /// Takes a part of a multipart reply, and gives the reply to whoever waits when it is the last one. A reply that is
    /// longer than `max` or of another kind fails the request; its parts are dropped.
    pub(super) fn part(&mut self, id: u32, kind: MultipartKind, more: bool, entries: Bytes, max: usize) -> Part {
        let Entry::Occupied(mut entry) = self.pending.entry(id) else { return Part::Unknown };
        if matches!(entry.get().0, Pending::Watch { .. }) {
            if let Pending::Watch { reply } = &mut entry.get_mut().0
                && let Some(reply) = reply.take()
            {
                let _ = reply.send(Ok(()));
            }
            if !more {
                entry.remove();
            }
            return Part::OfMonitor(entries);
        }
        let failure = match &mut entry.get_mut().0 {
            Pending::Multipart { kind: wanted, parts, size, .. } if *wanted == kind => {
                *size += entries.len();
                parts.push(entries);
                (*size > max).then_some(CallError::ReplyTooLong(max))
            }
            _ => Some(CallError::Unexpected(Kind::MULTIPART_REPLY)),
        };
        if let Some(error) = failure {
            std::mem::replace(&mut entry.get_mut().0, Pending::Ignored).fail(error);
        }
        if !more && let (Pending::Multipart { parts, reply, .. }, _) = entry.remove() {
            let _ = reply.send(Ok(parts));
        }
        Part::Taken
    }

    /// The connection ended after so many octets.
    pub(super) fn abandon(self, written: u64) {
        for (pending, first_byte) in self.pending.into_values() {
            pending.fail(if first_byte < written { CallError::Disconnected } else { CallError::NotSent });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_ids_begin_anew_and_are_never_zero_or_in_use() {
        let mut requests = Requests::default();
        assert_eq!(requests.next_id(), 1);
        assert_eq!(requests.next_ids(10), 2);
        assert_eq!(requests.next_id(), 12);
        requests.last_id = u32::MAX - 5;
        assert_eq!(requests.next_ids(4), u32::MAX - 4);
        requests.last_id = u32::MAX - 5;
        assert_eq!(requests.next_ids(10), 1, "a range is never cut");
        requests.last_id = u32::MAX;
        requests.insert(1, Pending::Ignored, 0);
        assert_eq!(requests.next_id(), 2);
    }
}
