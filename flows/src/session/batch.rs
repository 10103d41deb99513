//! Messages that are sent together: as a bundle, or one after the other before a barrier. What is sent when, and to which
//! of them an error belongs. Nothing is read or written here but the buffer for what is to be sent.
//!
//! ```text
//!   bundle    open │ add 0 … add n-1 │ close ──refusals?──no──► commit ──► Committed, or Refused
//!                                              └────────yes──► discard ──► Refused
//!   sequence       │ 0 … n-1         │ barrier ──► the refusals
//! ```
//!
//! Open vSwitch forgets a message that makes no sense and would commit the rest, so the commit waits until the answer to
//! the close says that no error is on its way any more.

use std::vec::IntoIter;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::{CallError, Outcome, Refusal, RefusalError, Reply};
use crate::message::{BundleControl, BundleStep, Kind, Message, SwitchError};

/// Refusals that are kept of one bundle or sequence.
pub const MAX_REFUSALS: usize = 64;

/// Octets of the request that are kept of an error: what the specification guarantees.
const ERROR_DATA: usize = 64;

const FLAGS: u16 = BundleControl::ATOMIC | BundleControl::ORDERED;

/// Who waits for the end of a batch.
pub(super) enum Waiter {
    Bundle(oneshot::Sender<Outcome>),
    Sequence(Reply<Vec<Refusal>>),
}

/// What is to be done after a message of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait on.
    Wait,
    /// Send what [`Batch::commit`] writes.
    Commit,
    /// [`Batch::finish`].
    Finish,
}

/// A bundle or sequence on its way.
pub(super) struct Batch {
    waiter: Waiter,
    /// Transaction id of the open; those of the messages, of the close or barrier and of the commit follow it.
    first: u32,
    count: u32,
    messages: IntoIter<Message>,
    next: u32,
    opened: bool,
    /// All is written, the close or barrier too.
    closed: bool,
    /// The commit is written; at this octet of the stream.
    committed_at: Option<u64>,
    /// The first octet of the batch.
    began_at: u64,
    refusals: Vec<Refusal>,
    committed: bool,
}

impl Batch {
    /// Begins at an octet of the stream, with the first of [`Batch::ids`] transaction ids.
    pub(super) fn new(waiter: Waiter, messages: Vec<Message>, first: u32, began_at: u64) -> Self {
        // More messages than transaction ids would not fit into any memory.
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX - 3);
        Self {
            waiter,
            first,
            count,
            messages: messages.into_iter(),
            next: 0,
            opened: false,
            closed: false,
            committed_at: None,
            began_at,
            refusals: Vec::new(),
            committed: false,
        }
    }

    /// How many transaction ids so many messages take.
    pub(super) fn ids(messages: usize) -> u32 {
        u32::try_from(messages).unwrap_or(u32::MAX - 3).saturating_add(3)
    }

    fn is_bundle(&self) -> bool {
        matches!(self.waiter, Waiter::Bundle(_))
    }

    /// Whether all is written but the commit.
    pub(super) fn is_written(&self) -> bool {
        self.closed
    }

    /// Appends messages until the buffer has `enough` octets or all are there; gives how many it appended, and how many
    /// of them change something.
    pub(super) fn fill(&mut self, out: &mut BytesMut, enough: usize) -> (u64, u64) {
        let (mut written, mut changes) = (0, 0);
        if self.is_bundle() && !std::mem::replace(&mut self.opened, true) {
            written += u64::from(self.control(BundleStep::OpenRequest, 0, out));
        }
        while out.len() < enough && !self.closed {
            let Some(message) = self.messages.next() else {
                self.closed = true;
                let end = self.first.wrapping_add(self.count + 1);
                if self.is_bundle() {
                    self.control(BundleStep::CloseRequest, self.count + 1, out);
                } else {
                    // A barrier is never too long.
                    let _ = Message::BarrierRequest.encode(end, out);
                }
                written += 1;
                break;
            };
            let index = self.next;
            self.next += 1;
            let xid = self.first.wrapping_add(index + 1);
            let encoded = match self.waiter {
                Waiter::Bundle(_) => message.encode_in_bundle(self.first, FLAGS, xid, out),
                Waiter::Sequence(_) => message.encode(xid, out),
            };
            match encoded {
                Ok(()) => {
                    written += 1;
                    changes += u64::from(matches!(message.kind(), Kind::FLOW_MOD | Kind::GROUP_MOD | Kind::METER_MOD));
                }
                Err(error) => self.refuse(Some(index), error.into()),
            }
        }
        (written, changes)
    }

    fn control(&self, step: BundleStep, offset: u32, out: &mut BytesMut) -> bool {
        let control = BundleControl { id: self.first, step, flags: FLAGS };
        Message::BundleControl(control).encode(self.first.wrapping_add(offset), out).is_ok()
    }

    /// Appends the commit, which begins at this octet of the stream.
    pub(super) fn commit(&mut self, out: &mut BytesMut, at: u64) {
        self.committed_at = Some(at);
        self.control(BundleStep::CommitRequest, self.count + 2, out);
    }

    /// Which message of the batch this transaction id is of.
    pub(super) fn offset(&self, xid: u32) -> Option<u32> {
        let offset = xid.wrapping_sub(self.first);
        (offset < self.count + 3).then_some(offset)
    }

    fn refuse(&mut self, index: Option<u32>, error: RefusalError) {
        if self.refusals.len() < MAX_REFUSALS {
            self.refusals.push(Refusal { index: index.map(|index| index as usize), error });
        }
    }

    /// The switch refused the message of this offset.
    pub(super) fn refused(&mut self, offset: u32, mut error: SwitchError) -> Step {
        // What the switch sends back is a part of a buffer with much else in it.
        error.data = Bytes::copy_from_slice(&error.data[..error.data.len().min(ERROR_DATA)]);
        let end = self.count + 1;
        match offset {
            0 => {
                // There is no bundle: nothing but its end needs to be sent.
                self.messages = Vec::new().into_iter();
                self.refuse(None, error.into());
                Step::Wait
            }
            offset if offset < end => {
                self.refuse(Some(offset - 1), error.into());
                Step::Wait
            }
            _ => {
                // The refusal of the commit only repeats that of a message, if there is one.
                if self.refusals.is_empty() || offset == end {
                    self.refuse(None, error.into());
                }
                Step::Finish
            }
        }
    }

    /// The switch answered the message of this offset.
    pub(super) fn answered(&mut self, offset: u32, kind: Kind) -> Step {
        let end = self.count + 1;
        match kind {
            Kind::BUNDLE_CONTROL if self.is_bundle() && offset == end && self.committed_at.is_none() => {
                if self.refusals.is_empty() { Step::Commit } else { Step::Finish }
            }
            Kind::BUNDLE_CONTROL if self.is_bundle() && offset > end && self.committed_at.is_some() => {
                self.committed = true;
                Step::Finish
            }
            Kind::BARRIER_REPLY if !self.is_bundle() && offset == end => Step::Finish,
            _ => Step::Wait,
        }
    }

    /// Tells the one who waits. What is left to be sent is appended.
    pub(super) fn finish(self, out: &mut BytesMut) {
        if self.is_bundle() && self.committed_at.is_none() {
            self.control(BundleStep::DiscardRequest, self.count + 2, out);
        }
        // One that went away does not mind.
        match self.waiter {
            Waiter::Bundle(reply) if self.committed => drop(reply.send(Outcome::Committed)),
            Waiter::Bundle(reply) => drop(reply.send(Outcome::Refused(self.refusals))),
            Waiter::Sequence(reply) => drop(reply.send(Ok(self.refusals))),
        }
    }

    /// Tells the one who waits that the connection ended after so many octets.
    pub(super) fn abandon(self, written: u64) {
        match self.waiter {
            Waiter::Bundle(reply) => {
                let committing = self.committed_at.is_some_and(|at| at < written);
                let _ = reply.send(if committing { Outcome::Unknown } else { Outcome::NotSent });
            }
            Waiter::Sequence(reply) => {
                let sent = self.began_at < written;
                let _ = reply.send(Err(if sent { CallError::Disconnected } else { CallError::NotSent }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill_in_steps(waiter: Waiter, steps: usize) -> (BytesMut, u64) {
        let messages = vec![Message::EchoRequest(Bytes::from_static(&[1; 20])); 10];
        let mut batch = Batch::new(waiter, messages, 100, 0);
        let (mut out, mut written) = (BytesMut::new(), 0);
        while !batch.is_written() {
            let mut step = BytesMut::new();
            written += batch.fill(&mut step, steps).0;
            out.unsplit(step);
        }
        (out, written)
    }

    #[test]
    fn what_is_written_does_not_depend_on_the_room_there_is() {
        let bundle = || Waiter::Bundle(oneshot::channel().0);
        let sequence = || Waiter::Sequence(oneshot::channel().0);
        let (at_once, written) = fill_in_steps(bundle(), usize::MAX);
        assert_eq!((at_once.len(), written), (16 + 10 * 44 + 16, 12));
        let (sequence_at_once, written) = fill_in_steps(sequence(), usize::MAX);
        assert_eq!((sequence_at_once.len(), written), (10 * 28 + 8, 11));
        for steps in [1, 16, 17, 60, 100] {
            assert_eq!(fill_in_steps(bundle(), steps), (at_once.clone(), 12), "{steps}");
            assert_eq!(fill_in_steps(sequence(), steps), (sequence_at_once.clone(), 11), "{steps}");
        }
    }

    #[test]
    fn each_message_has_its_transaction_id() {
        let batch = Batch::new(Waiter::Sequence(oneshot::channel().0), vec![Message::FeaturesRequest; 3], 7, 0);
        let offsets: Vec<_> = (5..15).map(|xid| batch.offset(xid)).collect();
        let expected = [None, None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), None, None];
        assert_eq!(offsets, expected);
        assert_eq!(Batch::ids(3), 6);
    }
}
