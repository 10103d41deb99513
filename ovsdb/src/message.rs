//! JSON-RPC 1.0 messages (RFC 7047 section 4): reading one from the bytes that [`crate::framing`] cut out,
//! writing ours, and the `<error>` object of section 3.1. What a method means is for [`crate::session`].

use std::fmt;

use serde::Serialize;
use serde_json::{Map as Object, Value, json};

use crate::value::DecodeError;

/// A message from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A call that wants an answer with the same `id`, e.g. `echo`.
    Request {
        /// What.
        method: String,
        /// Arguments.
        params: Value,
        /// To be repeated in the answer, whatever it is.
        id: Value,
    },
    /// A call that wants none, e.g. `update3`.
    Notification {
        /// What.
        method: String,
        /// Arguments.
        params: Value,
    },
    /// An answer to one of our calls.
    Response {
        /// The `id` of the call.
        id: Value,
        /// The result, or the error where that is not null.
        answer: Result<Value, ServerError>,
    },
}

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// When the bytes are not JSON in UTF-8, or the object is none of the three kinds.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let json: Value = serde_json::from_slice(bytes).map_err(|e| DecodeError::new(format!("not JSON: {e}")))?;
        let Value::Object(mut object) = json else {
            return Err(DecodeError::expected("a JSON-RPC object", &json));
        };
        let id = object.remove("id").unwrap_or(Value::Null);
        if let Some(method) = object.remove("method") {
            let Value::String(method) = method else {
                return Err(DecodeError::expected("a string", &method).within("method"));
            };
            let params = object.remove("params").unwrap_or(Value::Null);
            return Ok(match id {
                Value::Null => Self::Notification { method, params },
                id => Self::Request { method, params, id },
            });
        }
        match (object.remove("result"), object.remove("error")) {
            (Some(result), None | Some(Value::Null)) => Ok(Self::Response { id, answer: Ok(result) }),
            (_, Some(error)) if !error.is_null() => Ok(Self::Response { id, answer: Err(ServerError::decode(&error)) }),
            _ => Err(DecodeError::new("neither a call nor an answer")),
        }
    }
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

/// The answer to a server's call.
#[must_use]
pub fn response(id: &Value, answer: Result<Value, Value>) -> Vec<u8> {
    let (result, error) = match answer {
        Ok(result) => (result, Value::Null),
        Err(error) => (Value::Null, error),
    };
    json!({"id": id, "result": result, "error": error}).to_string().into_bytes()
}

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
    /// Reads an `<error>`. Servers put a bare string in its place at times, so anything is taken.
    #[must_use]
    pub fn decode(json: &Value) -> Self {
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

    #[test]
    fn three_kinds_of_message() {
        let decode = |text: &str| Message::decode(text.as_bytes()).unwrap();
        assert_eq!(
            decode(r#"{"method":"echo","params":["x"],"id":"echo"}"#),
            Message::Request { method: "echo".into(), params: json!(["x"]), id: json!("echo") }
        );
        let locked = Message::Notification { method: "locked".into(), params: json!(["l"]) };
        assert_eq!(decode(r#"{"method":"locked","params":["l"],"id":null}"#), locked);
        assert_eq!(decode(r#"{"method":"locked","params":["l"]}"#), locked);
        assert_eq!(
            decode(r#"{"id":7,"result":[],"error":null}"#),
            Message::Response { id: json!(7), answer: Ok(json!([])) }
        );
        // A null result is a result where the error is null too.
        assert_eq!(
            decode(r#"{"id":7,"result":null,"error":null}"#),
            Message::Response { id: json!(7), answer: Ok(Value::Null) }
        );
        let error = ServerError { error: "unknown database".into(), details: Some("no x (syntax [\"x\"])".into()) };
        assert_eq!(
            decode(
                r#"{"id":7,"result":null,"error":{"error":"unknown database","details":"no x","syntax":"[\"x\"]"}}"#
            ),
            Message::Response { id: json!(7), answer: Err(error.clone()) }
        );
        assert_eq!(error.kind(), ErrorKind::UnknownDatabase);
        assert_eq!(
            decode(r#"{"id":7,"error":"canceled"}"#),
            Message::Response { id: json!(7), answer: Err(ServerError { error: "canceled".into(), details: None }) }
        );
    }

    #[test]
    fn anything_else_is_an_error() {
        for bytes in [
            &b"{"[..],
            b"{}",
            b"[]",
            b"{\"method\":1}",
            b"{\"id\":1}",
            b"{\"a\":\"\xff\"}",
            b"{\"id\":1,\"error\":null}",
        ] {
            assert!(Message::decode(bytes).is_err(), "{bytes:?}");
        }
    }
}
