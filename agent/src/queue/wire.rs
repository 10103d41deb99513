//! JetStream's messages, as far as they are spoken here: requests and answers in JSON, what an acknowledgement's
//! subject tells of a delivery, and the headers. Decoding never panics, whatever the peer sends.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::QueueError;

/// What a message does to its key (NATS ADR-8).
pub(super) const OPERATION: &str = "KV-Operation";
/// Removes what the subject had before.
pub(super) const ROLLUP: &str = "Nats-Rollup";
/// The sequence that the subject has to be of.
pub(super) const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// Sequence of a message that was asked for.
pub(super) const SEQUENCE: &str = "Nats-Sequence";
/// When it was written, RFC 3339.
pub(super) const TIME: &str = "Nats-Time-Stamp";
/// In an idle heartbeat: sequence of what the consumer delivered last.
pub(super) const LAST_CONSUMER: &str = "Nats-Last-Consumer";
/// In an idle heartbeat: the consumer waits for an answer to this subject.
pub(super) const STALLED: &str = "Nats-Consumer-Stalled";

/// `err_code`: stream not found.
pub(super) const NO_STREAM: u64 = 10059;
/// `err_code`: wrong last sequence.
pub(super) const WRONG_SEQUENCE: u64 = 10071;
/// `err_code`: a stream of that name is in use with another configuration.
pub(super) const NAME_IN_USE: u64 = 10058;

/// An error of JetStream.
#[derive(Debug, Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    pub(super) err_code: u64,
    #[serde(default)]
    pub(super) description: String,
}

/// The answer to a write.
#[derive(Debug, Deserialize)]
pub(super) struct Acknowledged {
    pub(super) seq: u64,
}

/// `CONSUMER.CREATE`
#[derive(Debug, Serialize)]
pub(super) struct CreateConsumer<'a> {
    pub(super) stream_name: &'a str,
    pub(super) config: ConsumerConfig<'a>,
}

/// A consumer that lives as long as somebody listens, and delivers everything once (NATS ADR-17).
#[derive(Debug, Serialize)]
pub(super) struct ConsumerConfig<'a> {
    pub(super) name: &'a str,
    pub(super) deliver_subject: &'a str,
    pub(super) filter_subject: &'a str,
    pub(super) deliver_policy: &'a str,
    pub(super) ack_policy: &'a str,
    pub(super) replay_policy: &'a str,
    pub(super) max_deliver: i64,
    pub(super) flow_control: bool,
    /// Nanoseconds.
    pub(super) idle_heartbeat: u64,
    /// Nanoseconds.
    pub(super) inactive_threshold: u64,
    pub(super) num_replicas: u32,
    pub(super) mem_storage: bool,
}

/// What is used of its answer.
#[derive(Debug, Deserialize)]
pub(super) struct Consumer {
    #[serde(default)]
    pub(super) num_pending: u64,
}

/// `STREAM.CREATE`: a bucket of keys and values (NATS ADR-8).
#[derive(Debug, Serialize)]
pub(super) struct StreamConfig<'a> {
    pub(super) name: &'a str,
    pub(super) subjects: [String; 1],
    pub(super) max_msgs_per_subject: i64,
    pub(super) max_msg_size: i64,
    pub(super) storage: &'a str,
    pub(super) num_replicas: u32,
    pub(super) discard: &'a str,
    pub(super) deny_delete: bool,
    pub(super) allow_rollup_hdrs: bool,
    pub(super) allow_direct: bool,
}

/// `STREAM.INFO`
#[derive(Debug, Deserialize)]
pub(super) struct Stream {
    pub(super) created: String,
    pub(super) state: StreamState,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    #[serde(default)]
    pub(super) messages: u64,
    #[serde(default)]
    pub(super) bytes: u64,
    #[serde(default)]
    pub(super) last_seq: u64,
}

/// Reads an answer: what was asked for, or JetStream's error.
pub(super) fn answer<T: for<'de> Deserialize<'de>>(attempt: &str, payload: &[u8]) -> Result<T, QueueError> {
    #[derive(Deserialize)]
    struct MayFail {
        #[serde(default)]
        error: Option<ApiError>,
    }
    let garbled = |error: serde_json::Error| QueueError::Garbled { attempt: attempt.into(), reason: error.to_string() };
    if let Some(ApiError { err_code, description }) = serde_json::from_slice::<MayFail>(payload).map_err(garbled)?.error
    {
        return Err(QueueError::Refused {
            attempt: attempt.into(),
            code: err_code,
            description: printable(&description),
        });
    }
    serde_json::from_slice(payload).map_err(garbled)
}

/// The words of a peer, fit for a line of a log.
pub(super) fn printable(words: &str) -> String {
    words.chars().take(300).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// What the subject to which a delivery would be acknowledged tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery<'s> {
    pub(super) consumer: &'s str,
    /// In the stream: the revision of the key.
    pub(super) stream_sequence: u64,
    /// Of this consumer, from 1 on without gaps.
    pub(super) consumer_sequence: u64,
    pub(super) written_at: SystemTime,
    /// How many more there are.
    pub(super) pending: u64,
}

impl<'s> Delivery<'s> {
    /// `$JS.ACK.STREAM.CONSUMER.DELIVERED.STREAM-SEQ.CONSUMER-SEQ.TIME.PENDING`, or since 2.11 with the domain and a hash of
    /// the account before the stream and perhaps something after.
    pub(super) fn read(subject: &'s str) -> Option<Delivery<'s>> {
        let tokens: Vec<&str> = subject.strip_prefix("$JS.ACK.")?.split('.').collect();
        let tokens = match tokens.len() {
            7 => &tokens[..],
            9.. => &tokens[2..9],
            _ => return None,
        };
        let [_, consumer, _, stream_sequence, consumer_sequence, time, pending] = tokens else { return None };
        Some(Delivery {
            consumer,
            stream_sequence: stream_sequence.parse().ok()?,
            consumer_sequence: consumer_sequence.parse().ok()?,
            written_at: SystemTime::UNIX_EPOCH + Duration::from_nanos(time.parse().ok()?),
            pending: pending.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_of_the_acknowledgement_are_read() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_795_433_414_433_443_615);
        let want = Delivery { consumer: "c", stream_sequence: 30, consumer_sequence: 2, written_at: at, pending: 7 };
        for subject in [
            "$JS.ACK.KV_vifs.c.1.30.2.1795433414433443615.7",
            "$JS.ACK._.hAsH.KV_vifs.c.1.30.2.1795433414433443615.7",
            "$JS.ACK.hub.hAsH.KV_vifs.c.1.30.2.1795433414433443615.7.random",
        ] {
            assert_eq!(Delivery::read(subject), Some(want), "{subject}");
        }
        for subject in [
            "",
            "$JS.ACK",
            "$JS.ACK.",
            "$JS.ACK.s.c.1.2.3.4",
            "$JS.ACK.s.c.1.2.3.4.x",
            "$JS.ACK.s.c.1.2.3.4.5.6",
            "$JS.ACK.s.c.1.2.3.99999999999999999999.5",
            "_INBOX.x",
        ] {
            assert_eq!(Delivery::read(subject), None, "{subject}");
        }
    }

    #[test]
    fn an_error_in_an_answer_is_one() {
        let refused = br#"{"type":"t","error":{"code":404,"err_code":10059,"description":"stream not\nfound"}}"#;
        let error = answer::<Stream>("information", refused).unwrap_err();
        assert_eq!(error.to_string(), "the queue refuses information: stream not found (10059)");
        for garbage in [&b""[..], b"{}", b"[1]", b"{\"seq\":-1}", b"\xff\xfe"] {
            assert!(matches!(answer::<Acknowledged>("a write", garbage), Err(QueueError::Garbled { .. })));
        }
    }

    proptest! {
        #[test]
        fn reading_a_subject_never_panics(text in "(\\$JS\\.ACK\\.)?[0-9a-z.]{0,60}") {
            Delivery::read(&text);
        }
    }
}
