//! A list of keys, whole, and then every change in order: one ordered consumer (NATS ADR-17) that begins with the last
//! message of each key. What does not come in order, or not at all, is told as lost, and whoever watches lists again.
//!
//! ```text
//! begin ──► Listing ── nothing pending, or idle ──► Changes ──► …
//!              └──────────┬──────────────────────────┘
//!                         ▼ gap, silence, another connection, the end
//!                        Lost
//! ```

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode, Subject, Subscriber};
use futures::StreamExt as _;
use rand::RngExt as _;
use rand::distr::Alphanumeric;
use tokio::sync::watch as channel;
use tokio::time::Instant;

use super::bucket::{Bucket, Entry, operation};
use super::wire::{self, Consumer, ConsumerConfig, CreateConsumer, Delivery};
use super::{QueueError, Session};

/// A consumer that has nothing to deliver says so this often…
const HEARTBEAT: Duration = Duration::from_secs(5);
/// …and is gone when nothing has come for this long.
const SILENCE: Duration = Duration::from_secs(12);
/// The server forgets a consumer to which nobody has listened for this long.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// A watch of some keys of a bucket.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    subscriber: Subscriber,
    session: channel::Receiver<Session>,
    /// The connection that this is about.
    connects: u64,
    order: Order,
    /// When it was last heard of.
    heard: Instant,
    /// Where the server waits for a sign that we keep up.
    owed: Option<Subject>,
    /// [`Happening::Complete`] follows at once.
    complete: bool,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// An entry of the list, or a change.
    Entry(Entry),
    /// The list is whole: what was not in it is not there. Once, and then come changes.
    Complete,
}

/// Why nothing more comes: the list has to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Lost {
    /// The connection was lost, or is another one.
    #[error("the connection with the queue was lost")]
    Connection,
    /// Something is missing between what was delivered.
    #[error("the queue did not deliver everything")]
    Gap,
    /// The server knows of no consumer any more: it restarted, or the bucket was removed.
    #[error("the queue has stopped to deliver")]
    Silence,
}

impl Watch {
    pub(super) async fn begin(bucket: &Bucket, filter: &str) -> Result<Watch, QueueError> {
        let attempt = format!("to list {filter} of bucket {}", bucket.name());
        let client = bucket.queue.client.clone();
        let session = bucket.queue.session();
        let connects = session.borrow().connects;
        let inbox = client.new_inbox();
        // Before there is a consumer, which begins to deliver at once.
        let subscriber = client
            .subscribe(inbox.clone())
            .await
            .map_err(|_| QueueError::NoAnswer { attempt: attempt.clone(), hint: bucket.queue.hint() })?;
        let name: String = rand::rng().sample_iter(Alphanumeric).take(16).map(char::from).collect();
        let filter = format!("{}{filter}", bucket.prefix);
        let request = CreateConsumer {
            stream_name: &bucket.stream,
            config: ConsumerConfig {
                name: &name,
                deliver_subject: &inbox,
                filter_subject: &filter,
                deliver_policy: "last_per_subject",
                ack_policy: "none",
                replay_policy: "instant",
                max_deliver: 1,
                flow_control: true,
                idle_heartbeat: nanoseconds(HEARTBEAT),
                inactive_threshold: nanoseconds(FORGOTTEN),
                num_replicas: 1,
                mem_storage: true,
            },
        };
        // The filter is in the subject, where permissions can be about it.
        let subject = format!("CONSUMER.CREATE.{}.{name}.{filter}", bucket.stream);
        let consumer: Consumer = bucket.ask(&attempt, &subject, &request).await?;
        let complete = consumer.num_pending == 0;
        let order = Order { consumer: name, prefix: bucket.prefix.clone(), last: 0, listing: !complete };
        Ok(Watch { client, subscriber, session, connects, order, heard: Instant::now(), owed: None, complete })
    }

    /// The next thing that happens. Nothing is lost when this is dropped before it is ready.
    ///
    /// # Errors
    /// Nothing more comes of this watch.
    pub async fn next(&mut self) -> Result<Happening, Lost> {
        loop {
            if let Some(subject) = &self.owed {
                // Without this sign nothing more would be delivered; one too many does no harm.
                self.client.publish(subject.clone(), "".into()).await.map_err(|_| Lost::Connection)?;
                self.owed = None;
            }
            if std::mem::take(&mut self.complete) {
                return Ok(Happening::Complete);
            }
            let connects = self.connects;
            let message = tokio::select! {
                message = self.subscriber.next() => message.ok_or(Lost::Connection)?,
                // The consumer may live on, but what it delivered to nobody is not delivered again.
                _ = self.session.wait_for(|session| !session.up || session.connects != connects) => return Err(Lost::Connection),
                () = tokio::time::sleep_until(self.heard + SILENCE) => return Err(Lost::Silence),
            };
            self.heard = Instant::now();
            let (happening, complete) = match self.order.take(&message)? {
                Sign::Nothing => continue,
                Sign::Answer(subject) => {
                    self.owed = Some(subject);
                    continue;
                }
                Sign::Idle { stalled, complete } => {
                    self.owed = stalled;
                    self.complete = complete;
                    continue;
                }
                Sign::Entry { entry, complete } => (Happening::Entry(entry), complete),
            };
            self.complete = complete;
            return Ok(happening);
        }
    }

    /// The next thing that happens, where one is there already.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn so_far(&mut self) -> Result<Option<Happening>, Lost> {
        use futures::FutureExt as _;
        self.next().now_or_never().transpose()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What one message of the consumer means.
#[derive(Debug)]
enum Sign {
    Nothing,
    /// The server wants to know that we keep up.
    Answer(Subject),
    /// There is nothing to deliver.
    Idle {
        stalled: Option<Subject>,
        complete: bool,
    },
    Entry {
        entry: Entry,
        complete: bool,
    },
}

/// The order in which messages have to come.
#[derive(Debug)]
struct Order {
    consumer: String,
    prefix: String,
    /// Of this consumer, the sequence of the last message that came.
    last: u64,
    listing: bool,
}

impl Order {
    fn take(&mut self, message: &Message) -> Result<Sign, Lost> {
        match message.status {
            Some(StatusCode::IDLE_HEARTBEAT) => return self.idle(message),
            // Nothing of the stream has a status: 409 and its like tell that the consumer is no more.
            Some(status) if status != StatusCode::OK => return Err(Lost::Silence),
            _ => {}
        }
        let Some(delivery) = message.reply.as_deref().and_then(Delivery::read) else { return Ok(Sign::Nothing) };
        if delivery.consumer != self.consumer {
            return Ok(Sign::Nothing);
        }
        if delivery.consumer_sequence != self.last + 1 {
            return Err(Lost::Gap);
        }
        self.last = delivery.consumer_sequence;
        let complete = self.listing && delivery.pending == 0;
        self.listing &= !complete;
        let entry = Entry {
            key: message.subject.strip_prefix(&self.prefix).unwrap_or_default().to_owned(),
            revision: delivery.stream_sequence,
            operation: operation(message.headers.as_ref()),
            value: message.payload.clone(),
            written_at: delivery.written_at,
        };
        Ok(Sign::Entry { entry, complete })
    }

    fn idle(&mut self, message: &Message) -> Result<Sign, Lost> {
        // One that wants an answer is about the flow and not about being idle.
        if let Some(reply) = &message.reply {
            return Ok(Sign::Answer(reply.clone()));
        }
        let header = |name| message.headers.as_ref().and_then(|headers: &HeaderMap| headers.get(name));
        let last = header(wire::LAST_CONSUMER).and_then(|text| text.as_str().parse::<u64>().ok());
        if last.is_some_and(|last| last != self.last) {
            return Err(Lost::Gap);
        }
        let stalled = header(wire::STALLED).map(|text| Subject::from(text.as_str()));
        // A server that counts what is pending wrongly must not keep the list open for ever.
        let complete = self.listing && last.is_some() && stalled.is_none();
        self.listing &= !complete;
        Ok(Sign::Idle { stalled, complete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Operation;

    fn order() -> Order {
        Order { consumer: "c".into(), prefix: "$KV.vifs.".into(), last: 0, listing: true }
    }

    fn message(subject: &str, reply: Option<&str>, status: Option<u16>, headers: &[(&str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.append(*name, *value));
        Message {
            subject: subject.into(),
            reply: reply.map(Subject::from),
            payload: "v".into(),
            headers: (!headers.is_empty()).then_some(map),
            status: status.map(|code| StatusCode::from_u16(code).unwrap()),
            description: None,
            length: 0,
        }
    }

    fn delivered(sequence: u64, pending: u64) -> Message {
        message(
            "$KV.vifs.h.k",
            Some(&format!("$JS.ACK.KV_vifs.c.1.{}.{sequence}.5.{pending}", 100 + sequence)),
            None,
            &[],
        )
    }

    #[test]
    fn a_list_is_complete_when_nothing_is_pending() {
        let mut order = order();
        for (sequence, pending, done) in [(1, 2, false), (2, 1, false), (3, 0, true), (4, 0, false)] {
            match order.take(&delivered(sequence, pending)).unwrap() {
                Sign::Entry { entry, complete } => {
                    assert_eq!((entry.key.as_str(), entry.revision, complete), ("h.k", 100 + sequence, done));
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_missing_is_noticed_by_the_next_message_or_by_the_heartbeat() {
        assert_eq!(order().take(&delivered(2, 0)).unwrap_err(), Lost::Gap);
        let mut order = order();
        order.take(&delivered(1, 1)).unwrap();
        let idle = |last: &str| message("_INBOX", None, Some(100), &[(wire::LAST_CONSUMER, last)]);
        assert_eq!(order.take(&idle("2")).unwrap_err(), Lost::Gap);
        assert!(matches!(order.take(&idle("1")).unwrap(), Sign::Idle { complete: true, .. }));
        assert!(matches!(order.take(&idle("1")).unwrap(), Sign::Idle { complete: false, .. }));
        assert_eq!(order.take(&message("_INBOX", None, Some(409), &[])).unwrap_err(), Lost::Silence);
    }

    #[test]
    fn what_is_not_of_this_consumer_says_nothing() {
        let mut order = order();
        for reply in [None, Some("_INBOX.x"), Some("$JS.ACK.KV_vifs.other.1.1.1.5.0"), Some("$JS.ACK.x")] {
            assert!(matches!(order.take(&message("$KV.vifs.h.k", reply, None, &[])).unwrap(), Sign::Nothing));
        }
        let flow = message("_INBOX", Some("$JS.FC.x"), Some(100), &[]);
        assert!(matches!(order.take(&flow).unwrap(), Sign::Answer(_)));
        let stalled = message("_INBOX", None, Some(100), &[(wire::LAST_CONSUMER, "0"), (wire::STALLED, "$JS.FC.x")]);
        assert!(matches!(order.take(&stalled).unwrap(), Sign::Idle { stalled: Some(_), complete: false }));
    }

    #[test]
    fn deletions_are_told_from_values() {
        for (word, want) in [("DEL", Operation::Delete), ("PURGE", Operation::Purge), ("x", Operation::Put)] {
            let mut headers = HeaderMap::new();
            headers.insert(wire::OPERATION, word);
            assert_eq!(operation(Some(&headers)), want);
        }
        assert_eq!(operation(None), Operation::Put);
    }
}
