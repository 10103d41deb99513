//! Flow updates on their way from a session to the one who watches: a queue that is bounded in octets. They are read at
//! its end, so that the session does not have to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::DecodeError;
use crate::message::FlowUpdate;

enum Item {
    /// Entries of an `OFPMP_FLOW_MONITOR` reply.
    Updates(Bytes),
    Complete,
    Overflow,
}

/// The session's end.
pub(super) struct Sink {
    items: mpsc::UnboundedSender<Item>,
    queued: Arc<AtomicUsize>,
    limit: usize,
}

/// Nobody can be told any more.
pub(super) struct Closed;

impl Sink {
    pub(super) fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    pub(super) fn updates(&self, entries: Bytes) -> Result<(), Closed> {
        let octets = entries.len();
        if self.queued.fetch_add(octets, Ordering::Relaxed).saturating_add(octets) > self.limit {
            let _ = self.items.send(Item::Overflow);
            return Err(Closed);
        }
        self.items.send(Item::Updates(entries)).map_err(|_| Closed)
    }

    pub(super) fn complete(&self) {
        // One who went away is noticed at the next update.
        let _ = self.items.send(Item::Complete);
    }
}

/// What is seen by watching flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// What happened, in order: never empty.
    Updates(Vec<FlowUpdate>),
    /// All flows that were there at the beginning have been told.
    Complete,
}

/// Why there is nothing more to see. What was seen so far is worth nothing: watch again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The connection ended.
    #[error("the connection to the switch ended")]
    Disconnected,
    /// More waited than [`super::Config::max_watched`].
    #[error("flow updates were not read as fast as the switch sent them")]
    Overflow,
    /// The switch sent something that is no flow update.
    #[error("the switch sent a flow update that makes no sense: {0}")]
    Decode(#[from] DecodeError),
}

/// A view of all that happens to flows. Dropping it ends the watching.
#[derive(Debug)]
pub struct FlowWatch {
    items: mpsc::UnboundedReceiver<Item>,
    queued: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Updates(_) => "Updates",
            Self::Complete => "Complete",
            Self::Overflow => "Overflow",
        })
    }
}

impl FlowWatch {
    pub(super) fn new(limit: usize) -> (Sink, Self) {
        let (sender, items) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        (Sink { items: sender, queued: Arc::clone(&queued), limit }, Self { items, queued })
    }

    /// What is seen next.
    ///
    /// # Errors
    /// See [`WatchEnd`]; then it is over.
    pub async fn next(&mut self) -> Result<WatchEvent, WatchEnd> {
        loop {
            match self.items.recv().await {
                None => return Err(WatchEnd::Disconnected),
                Some(Item::Complete) => return Ok(WatchEvent::Complete),
                Some(Item::Overflow) => return Err(WatchEnd::Overflow),
                Some(Item::Updates(entries)) => {
                    self.queued.fetch_sub(entries.len(), Ordering::Relaxed);
                    let updates = FlowUpdate::decode_all(&entries)?;
                    if !updates.is_empty() {
                        return Ok(WatchEvent::Updates(updates));
                    }
                }
            }
        }
    }
}
