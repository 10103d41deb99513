//! JSON-RPC messages: what is read is what was written.

use ovsdb::message::{Message, ServerError, response};
use serde_json::{Value, json};

use super::presentable;

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("raw values are JSON")
}

pub(crate) fn check(data: &[u8]) -> bool {
    let message = match Message::decode(data) {
        Ok(message) => message,
        Err(error) => {
            presentable(&error);
            return false;
        }
    };
    match message {
        Message::Request { method, params, id } => {
            // An answer to it is a message too, and repeats the id to the last byte.
            for answer in [Ok(params), Err("unknown method")] {
                let bytes = response(id, answer);
                assert!(matches!(Message::decode(&bytes), Ok(Message::Response { .. })));
                assert!(bytes.starts_with(format!("{{\"id\":{},", id.get()).as_bytes()));
            }
            // Numbers beyond what a double holds are the reason for comparing the texts.
            let again = format!("{{\"method\":{},\"params\":{},\"id\":{}}}", json!(method), params.get(), id.get());
            let Ok(Message::Request { method: m, params: p, id: i }) = Message::decode(again.as_bytes()) else {
                panic!("a request is none when written again: {again}");
            };
            assert_eq!((m, p.get(), i.get()), (method, params.get(), id.get()));
        }
        Message::Notification { method, params } => {
            let again = format!("{{\"method\":{},\"params\":{},\"id\":null}}", json!(method), params.get());
            let Ok(Message::Notification { method: m, params: p }) = Message::decode(again.as_bytes()) else {
                panic!("a notification is none when written again: {again}");
            };
            assert_eq!((m, p.get()), (method, params.get()));
        }
        Message::Response { id, answer } => match answer {
            Ok(result) => {
                let again = format!("{{\"id\":{},\"result\":{},\"error\":null}}", json!(id), result.get());
                let Ok(Message::Response { id: i, answer: Ok(r) }) = Message::decode(again.as_bytes()) else {
                    panic!("an answer is none when written again: {again}");
                };
                assert_eq!((i, r.get()), (id, result.get()));
            }
            Err(error) => {
                presentable(&error);
                let again = json!({"error": error.error, "details": error.details});
                assert_eq!(ServerError::decode(&value(&again.to_string())), error);
            }
        },
    }
    true
}
