//! One bucket: a stream in which a subject is a key and its last message the value (NATS ADR-8).

use std::time::SystemTime;

use async_nats::client::Request;
use async_nats::{HeaderMap, Message, RequestErrorKind, StatusCode};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{self, Acknowledged, StreamConfig};
use super::{Queue, QueueError, Watch};

/// A bucket of keys and values. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub(super) queue: Queue,
    name: String,
    /// Of the stream behind it.
    pub(super) stream: String,
    /// What the subjects of its keys begin with.
    pub(super) prefix: String,
}

/// What a message does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Gives it a value.
    Put,
    /// Deletes it; the deletion is remembered as its last message.
    Delete,
    /// The same, and whatever there was before goes.
    Purge,
}

/// What a key last was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, without the bucket.
    pub key: String,
    /// Sequence of the message in its bucket; grows with every write of any key.
    pub revision: u64,
    /// What was done.
    pub operation: Operation,
    /// The value; empty when it was deleted.
    pub value: Bytes,
    /// When the server took it, by its clock.
    pub written_at: SystemTime,
}

/// How a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketInfo {
    /// When it was made (RFC 3339). Another time is another bucket, in which revisions begin anew.
    pub created: String,
    /// Keys with a value or a deletion that is remembered.
    pub keys: u64,
    /// Octets that they take.
    pub bytes: u64,
    /// Revision of the last write.
    pub last_revision: u64,
}

impl Bucket {
    pub(super) fn new(queue: Queue, name: &str) -> Bucket {
        Bucket { queue, name: name.to_owned(), stream: format!("KV_{name}"), prefix: format!("$KV.{name}.") }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it is. A host may not ask this: the answer can have the keys of all hosts in it.
    ///
    /// # Errors
    /// There is none, or the queue does not answer.
    pub async fn info(&self) -> Result<BucketInfo, QueueError> {
        let attempt = format!("what bucket {} is", self.name);
        let info: wire::Stream = self.ask(&attempt, &format!("STREAM.INFO.{}", self.stream), &()).await?;
        let wire::Stream { created, state } = info;
        Ok(BucketInfo { created, keys: state.messages, bytes: state.bytes, last_revision: state.last_seq })
    }

    /// Makes it where it is missing: on disk, in `replicas` servers of a cluster, with one value a key of at most
    /// `max_value` octets. One that is there stays as it is. A host may not do this.
    ///
    /// # Errors
    /// It is not there and cannot be made, or the queue does not answer.
    pub async fn ensure(&self, replicas: u32, max_value: u32) -> Result<BucketInfo, QueueError> {
        match self.info().await {
            Err(QueueError::NoBucket(_)) => {}
            answered => return answered,
        }
        let config = StreamConfig {
            name: &self.stream,
            subjects: [format!("{}>", self.prefix)],
            max_msgs_per_subject: 1,
            max_msg_size: i64::from(max_value),
            storage: "file",
            num_replicas: replicas,
            discard: "new",
            deny_delete: true,
            allow_rollup_hdrs: true,
            allow_direct: true,
        };
        let attempt = format!("to make bucket {}", self.name);
        match self.ask::<wire::Stream>(&attempt, &format!("STREAM.CREATE.{}", self.stream), &config).await {
            // Somebody else was faster.
            Ok(_) | Err(QueueError::Refused { code: wire::NAME_IN_USE, .. }) => self.info().await,
            Err(error) => Err(error),
        }
    }

    /// The last entry of a key; `None` when there never was one. A deletion is an entry.
    ///
    /// # Errors
    /// The queue does not answer, or may not be asked this.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, QueueError> {
        let attempt = format!("for {key} of bucket {}", self.name);
        let subject = format!("$JS.API.DIRECT.GET.{}.{}{key}", self.stream, self.prefix);
        let message = self.request(&attempt, subject, Request::new()).await?;
        if message.status == Some(StatusCode::NOT_FOUND) {
            return Ok(None);
        }
        let garbled = |reason: &str| QueueError::Garbled { attempt: attempt.clone(), reason: reason.into() };
        if let Some(status) = message.status.filter(|status| !status.is_success()) {
            return Err(garbled(&format!("status {status}")));
        }
        let headers = message.headers.as_ref().ok_or_else(|| garbled("no headers"))?;
        let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
        Ok(Some(Entry {
            key: key.to_owned(),
            revision: header(wire::SEQUENCE)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| garbled("no sequence"))?,
            operation: operation(Some(headers)),
            value: message.payload,
            written_at: header(wire::TIME)
                .and_then(|text| humantime::parse_rfc3339(text).ok())
                .ok_or_else(|| garbled("no time"))?,
        }))
    }

    /// Gives a key a value, whatever it had. Answers the revision, which is durable then.
    ///
    /// # Errors
    /// The queue does not answer or refuses. Without an answer the value may have been written all the same.
    pub async fn put(&self, key: &str, value: Bytes) -> Result<u64, QueueError> {
        self.write(key, Operation::Put, value, None).await
    }

    /// Gives a key a value provided that its last entry, deletions included, is of revision `expected`; 0 means that it
    /// never had one. Answers the new revision.
    ///
    /// # Errors
    /// [`QueueError::WrongRevision`] when somebody else wrote it; as [`Bucket::put`].
    pub async fn update(&self, key: &str, value: Bytes, expected: u64) -> Result<u64, QueueError> {
        self.write(key, Operation::Put, value, Some(expected)).await
    }

    /// Deletes a key, whatever it had; that it was deleted is remembered as its last entry. Answers the revision.
    ///
    /// # Errors
    /// As [`Bucket::put`].
    pub async fn delete(&self, key: &str) -> Result<u64, QueueError> {
        self.write(key, Operation::Delete, Bytes::new(), None).await
    }

    /// A list of all entries whose keys match `filter` (`TOKEN.>`, `>`, or one key), and then every change.
    ///
    /// # Errors
    /// There is no such bucket, it may not be read, or the queue does not answer.
    pub async fn watch(&self, filter: &str) -> Result<Watch, QueueError> {
        Watch::begin(self, filter).await
    }

    async fn write(
        &self,
        key: &str,
        operation: Operation,
        value: Bytes,
        expected: Option<u64>,
    ) -> Result<u64, QueueError> {
        let attempt = format!("to write {key} of bucket {}", self.name);
        let mut headers = HeaderMap::new();
        match operation {
            Operation::Put => {}
            Operation::Delete => headers.insert(wire::OPERATION, "DEL"),
            Operation::Purge => {
                headers.insert(wire::OPERATION, "PURGE");
                headers.insert(wire::ROLLUP, "sub");
            }
        }
        if let Some(expected) = expected {
            headers.insert(wire::EXPECTED, expected.to_string().as_str());
        }
        let mut request = Request::new().payload(value);
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let message = self.request(&attempt, format!("{}{key}", self.prefix), request).await?;
        match (wire::answer::<Acknowledged>(&attempt, &message.payload), expected) {
            (Ok(acknowledged), _) => Ok(acknowledged.seq),
            (Err(QueueError::Refused { code: wire::WRONG_SEQUENCE, .. }), Some(expected)) => {
                Err(QueueError::WrongRevision { key: key.to_owned(), expected })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Asks JetStream's API.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        attempt: &str,
        subject: &str,
        body: &impl Serialize,
    ) -> Result<T, QueueError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| QueueError::Garbled { attempt: attempt.to_owned(), reason: error.to_string() })?;
        let request = Request::new().payload(body.into());
        let message = self.request(attempt, format!("$JS.API.{subject}"), request).await?;
        wire::answer(attempt, &message.payload).map_err(|error| match error {
            QueueError::Refused { code: wire::NO_STREAM, .. } => QueueError::NoBucket(self.name.clone()),
            error => error,
        })
    }

    async fn request(&self, attempt: &str, subject: String, request: Request) -> Result<Message, QueueError> {
        self.queue.client.send_request(subject, request).await.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => QueueError::NoResponders { attempt: attempt.to_owned() },
            RequestErrorKind::MaxPayloadExceeded => {
                QueueError::TooLong { attempt: attempt.to_owned(), max: self.queue.client.max_payload() }
            }
            _ => QueueError::NoAnswer { attempt: attempt.to_owned(), hint: self.queue.hint() },
        })
    }
}

/// What a message with these headers does. Whatever is not known to delete gives a value, which is then judged.
pub(super) fn operation(headers: Option<&HeaderMap>) -> Operation {
    match headers.and_then(|headers| headers.get(wire::OPERATION)).map(async_nats::HeaderValue::as_str) {
        Some("DEL") => Operation::Delete,
        Some("PURGE") => Operation::Purge,
        _ => Operation::Put,
    }
}
