//! JSON-RPC 1.0 messages (RFC 7047 section 4): reading one from the bytes that [`crate::framing`] cut out,
//! writing ours, and the `<error>` object of section 3.1. What a method means is for [`crate::session`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map as Object, Value};

use crate::value::{DecodeError, clip};

/// A message from the server. Parameters and results stay text: they can be a whole database, which
/// [`crate::update`] reads without making a tree of it.
#[derive(Clone, Debug)]
pub enum Message<'a> {
    /// A call that wants an answer with the same `id`, e.g. `echo`.
    Request {
        /// What.
        method: String,
        /// Arguments.
        params: &'a RawValue,
        /// To be repeated in the answer, whatever it is.
        id: &'a RawValue,
    },
    /// A call that wants none, e.g. `update3`.
    Notification {
        /// What.
        method: String,
        /// Arguments.
        params: &'a RawValue,
    },
    /// An answer to one of our calls.
    Response {
        /// The `id` of the call; `None` when it is no number of ours.
        id: Option<u64>,
        /// The result, or the error where that is not null.
        answer: Result<&'a RawValue, ServerError>,
    },
}

impl<'a> Message<'a> {
    /// Reads one message.
    ///
    /// # Errors
    /// When the bytes are not JSON in UTF-8, or the object is none of the three kinds.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut object: BTreeMap<String, &'a RawValue> =
            serde_json::from_slice(bytes).map_err(|e| DecodeError::new(format!("not a JSON object: {e}")))?;
        let mut member = |name| object.remove(name);
        let id = member("id").filter(|id| !is_null(id));
        if let Some(method) = member("method") {
            let method = read(method).map_err(|e| e.within("method"))?;
            let params = member("params").unwrap_or(RawValue::NULL);
            return Ok(match id {
                None => Self::Notification { method, params },
                Some(id) => Self::Request { method, params, id },
            });
        }
        let id = id.and_then(|id| id.get().parse().ok());
        match (member("result"), member("error").filter(|error| !is_null(error))) {
            (_, Some(error)) => Ok(Self::Response { id, answer: Err(ServerError::decode(&read(error)?)) }),
            (Some(result), None) => Ok(Self::Response { id, answer: Ok(result) }),
            (None, None) => Err(DecodeError::new("neither a call nor an answer")),
        }
    }
}

fn is_null(json: &RawValue) -> bool {
    json.get() == "null"
}

/// Reads a part of a message that was left as text.
///
/// # Errors
/// When it is of another shape than `T`.
pub fn read<'a, T: Deserialize<'a>>(text: &'a RawValue) -> Result<T, DecodeError> {
    serde_json::from_str(text.get()).map_err(|error| DecodeError::new(error.to_string()))
}

/// A call with this numeric `id`.
#[must_use]
pub fn request<P: Serialize>(id: u64, method: &str, params: &P) -> Vec<u8> {
    #[derive(Serialize)]
    struct Request<'a, P> {
        id: u64,
        method: &'a str,
        params: &'a P,
    }
    #[expect(
        clippy::expect_used,
        reason = "writing to memory fails for map keys that are no strings only; parameters here are JSON values"
    )]
    serde_json::to_vec(&Request { id, method, params }).expect("parameters are JSON")
}

/// Whether any string in it contains NUL, names of members included.
pub(crate) fn has_nul(json: &Value) -> bool {
    match json {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members.iter().any(|(name, json)| name.contains('\0') || has_nul(json)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The answer to a server's call. Result or error are null, as JSON-RPC 1.0 wants it.
#[must_use]
pub fn response(id: &RawValue, answer: Result<&RawValue, &str>) -> Vec<u8> {
    let (result, error) = match answer {
        Ok(result) => (result.get(), Value::Null),
        Err(error) => ("null", Value::from(error)),
    };
    format!("{{\"id\":{},\"result\":{result},\"error\":{error}}}", id.get()).into_bytes()
}

/// Characters of each part of a [`ServerError`]. ovsdb-server's own have a few hundred.
const LONGEST: usize = 1500;

/// An `<error>` (RFC 7047 section 3.1), as the answer to a call or to one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    /// The short string that programs look at, e.g. `constraint violation`.
    pub error: String,
    /// What people look at.
    pub details: Option<String>,
}

/// The meaning of [`ServerError::error`] (RFC 7047 sections 4.1.3 and 5.2, ovsdb-server(7) 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A row that others refer to went, or a row refers to one that does not exist.
    ReferentialIntegrity,
    /// A value outside of what the schema allows: range, enumeration, index, number of rows.
    ConstraintViolation,
    /// The server had not enough memory or the like.
    ResourcesExhausted,
    /// The server could not write its file.
    Io,
    /// One name for two inserts.
    DuplicateUuidName,
    /// Division by zero in a mutation.
    Domain,
    /// A mutation left the range of its type.
    Range,
    /// A `wait` did not find what it waited for.
    TimedOut,
    /// Durable commit refused, or the like.
    NotSupported,
    /// An `abort` operation.
    Aborted,
    /// An `assert` on a lock that another session holds.
    NotOwner,
    /// The server does not have the database.
    UnknownDatabase,
    /// The server does not have the method.
    UnknownMethod,
    /// The request is malformed, e.g. names a column that the schema does not have.
    Syntax,
    /// Refused by role-based access control.
    Permission,
    /// Anything else.
    Other,
}

impl ServerError {
    /// Reads an `<error>`. Servers put a bare string in its place at times, so anything is taken, and a long one
    /// is cut: errors are logged and kept as the status of what failed.
    #[must_use]
    pub fn decode(json: &Value) -> Self {
        let Self { error, details } = Self::whole(json);
        let error = if error.is_empty() { "an error without a name" } else { &error };
        Self { error: clip(error, LONGEST), details: details.map(|details| clip(&details, LONGEST)) }
    }

    fn whole(json: &Value) -> Self {
        let text = |object: &Object<String, Value>, name| object.get(name).and_then(Value::as_str).map(str::to_owned);
        match json {
            Value::String(error) => Self { error: error.clone(), details: None },
            Value::Object(object) => {
                let details = match (text(object, "details"), text(object, "syntax")) {
                    (Some(details), Some(syntax)) => Some(format!("{details} (syntax {syntax})")),
                    (details, syntax) => details.or(syntax),
                };
                Self { error: text(object, "error").unwrap_or_else(|| json.to_string()), details }
            }
            other => Self { error: other.to_string(), details: None },
        }
    }

    /// What this library answers in the server's place where a string contains NUL: ovsdb-server's JSON
    /// parser gives up on it, and on the connection.
    #[must_use]
    pub(crate) fn nul() -> Self {
        let details = "a string contains NUL, which OVSDB cannot carry".to_owned();
        Self { error: "syntax error".to_owned(), details: Some(details) }
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.error.as_str() {
            "referential integrity violation" => ErrorKind::ReferentialIntegrity,
            "constraint violation" => ErrorKind::ConstraintViolation,
            "resources exhausted" => ErrorKind::ResourcesExhausted,
            "I/O error" => ErrorKind::Io,
            "duplicate uuid name" | "duplicate uuid-name" => ErrorKind::DuplicateUuidName,
            "domain error" => ErrorKind::Domain,
            "range error" => ErrorKind::Range,
            "timed out" => ErrorKind::TimedOut,
            "not supported" => ErrorKind::NotSupported,
            "aborted" => ErrorKind::Aborted,
            "not owner" => ErrorKind::NotOwner,
            "unknown database" => ErrorKind::UnknownDatabase,
            "unknown method" => ErrorKind::UnknownMethod,
            "syntax error" | "unknown column" | "unknown table" => ErrorKind::Syntax,
            "permission error" => ErrorKind::Permission,
            _ => ErrorKind::Other,
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        self.details.as_ref().map_or(Ok(()), |details| write!(f, ": {details}"))
    }
}
impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message in words.
    fn words(text: &str) -> String {
        match Message::decode(text.as_bytes()) {
            Ok(Message::Request { method, params, id }) => format!("request {method} {params} {id}"),
            Ok(Message::Notification { method, params }) => format!("notification {method} {params}"),
            Ok(Message::Response { id, answer: Ok(result) }) => format!("result {id:?} {result}"),
            Ok(Message::Response { id, answer: Err(error) }) => format!("error {id:?} {error}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn three_kinds_of_message() {
        let table = [
            (r#"{"method":"echo","params":["x"],"id":"echo"}"#, r#"request echo ["x"] "echo""#),
            (r#"{"method":"locked","params":["l"],"id":null}"#, r#"notification locked ["l"]"#),
            (r#"{"method":"locked"}"#, "notification locked null"),
            (r#"{"id":7,"result":[],"error":null}"#, "result Some(7) []"),
            // A null result is a result where the error is null too.
            (r#"{"id":7,"result":null,"error":null}"#, "result Some(7) null"),
            // ovsdb-server 3.1 leaves the null result out of an error answer; others do not.
            (r#"{"id":7,"error":"unknown method"}"#, "error Some(7) unknown method"),
            (
                r#"{"id":7,"result":null,"error":{"error":"unknown database","details":"no x","syntax":"[\"x\"]"}}"#,
                r#"error Some(7) unknown database: no x (syntax ["x"])"#,
            ),
            (r#"{"id":"7","result":1}"#, "result None 1"),
            (r#"{"id":-7,"result":1}"#, "result None 1"),
            (r#"{"id":1,"error":null}"#, "neither a call nor an answer"),
            ("{}", "neither a call nor an answer"),
        ];
        for (text, expected) in table {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_an_error() {
        for bytes in [&b"{"[..], b"[]", b"{\"method\":1}", b"{\"a\":\"\xff\",\"id\":1}", b"{\"a\":}", b""] {
            assert!(Message::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn our_messages_byte_by_byte() {
        assert_eq!(
            String::from_utf8(request(3, "lock", &["l"])).unwrap(),
            r#"{"id":3,"method":"lock","params":["l"]}"#
        );
        let Ok(Message::Request { params, id, .. }) =
            Message::decode(br#"{"id":["any",1],"method":"echo","params":[ 1.50 ]}"#)
        else {
            panic!()
        };
        // An echo goes back as it came, to the last byte.
        let echo = String::from_utf8(response(id, Ok(params))).unwrap();
        assert_eq!(echo, r#"{"id":["any",1],"result":[ 1.50 ],"error":null}"#);
        let refusal = String::from_utf8(response(id, Err("unknown method"))).unwrap();
        assert_eq!(refusal, r#"{"id":["any",1],"result":null,"error":"unknown method"}"#);
    }

    #[test]
    fn errors_are_told_apart_by_their_first_word() {
        for (error, kind) in [
            ("timed out", ErrorKind::TimedOut),
            ("not owner", ErrorKind::NotOwner),
            ("unknown column", ErrorKind::Syntax),
            ("constraint violation", ErrorKind::ConstraintViolation),
            ("referential integrity violation", ErrorKind::ReferentialIntegrity),
            ("something new", ErrorKind::Other),
        ] {
            assert_eq!(ServerError { error: error.to_owned(), details: None }.kind(), kind);
        }
        // Not as the RFC has it, and taken all the same.
        assert_eq!(ServerError::decode(&Value::from(5)).error, "5");
        assert_eq!(ServerError::decode(&Value::from("")).to_string(), "an error without a name");
        let long = ServerError::decode(&serde_json::json!({"error": "é".repeat(5000), "details": "x".repeat(5000)}));
        assert_eq!(long.to_string().chars().count(), 2 * (LONGEST + 1) + 2);
    }
}
