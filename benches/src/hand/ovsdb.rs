//! JSON-RPC on a raw unix socket: calls, answers and updates as `serde_json` values. No session, no replica, no
//! schema.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{StreamDeserializer, Value, de::IoRead, json};

/// Nothing that is waited for takes longer; only a run that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(600);

/// A connection.
pub struct Connection {
    stream: UnixStream,
    messages: StreamDeserializer<'static, IoRead<BufReader<UnixStream>>, Value>,
    /// Updates that came while an answer was waited for.
    early: Vec<Value>,
    id: u64,
}

impl Connection {
    /// Dials `unix:PATH`.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn open(endpoint: &str) -> Result<Connection> {
        let path = endpoint.strip_prefix("unix:").context("a unix: endpoint")?;
        let stream = UnixStream::connect(path).with_context(|| format!("connecting to {path}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
        let messages = serde_json::Deserializer::from_reader(reader).into_iter();
        Ok(Connection { stream, messages, early: Vec::new(), id: 0 })
    }

    /// The text of a request and its id, to be made ready before the clock starts.
    pub fn request(&mut self, method: &str, params: &Value) -> (u64, String) {
        self.id += 1;
        (self.id, json!({"method": method, "params": params, "id": self.id}).to_string())
    }

    /// Sends a request that is ready.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn post(&mut self, (_, text): &(u64, String)) -> Result<()> {
        Ok(self.stream.write_all(text.as_bytes())?)
    }

    /// Waits for the answer to a request that was sent. Updates that come before it are kept.
    ///
    /// # Errors
    /// When the connection ends or the server answers with an error.
    pub fn answer(&mut self, (id, _): &(u64, String)) -> Result<Value> {
        loop {
            let mut message = self.message()?;
            if message["id"] == *id && message.get("method").is_none() {
                if !message["error"].is_null() {
                    bail!("the server answered {}", message["error"]);
                }
                return Ok(message["result"].take());
            }
            self.early.push(message);
        }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// As [`Connection::answer`].
    pub fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        let request = self.request(method, params);
        self.post(&request)?;
        self.answer(&request)
    }

    /// Sends a transaction and waits for the result of each of its operations.
    ///
    /// # Errors
    /// As [`Connection::results`].
    pub fn transact(&mut self, request: &(u64, String)) -> Result<Vec<Value>> {
        self.post(request)?;
        self.results(request)
    }

    /// Waits for the results of a transaction that was sent.
    ///
    /// # Errors
    /// As [`Connection::answer`]; when an operation was refused.
    pub fn results(&mut self, request: &(u64, String)) -> Result<Vec<Value>> {
        let answer = self.answer(request)?;
        let results = answer.as_array().cloned().unwrap_or_default();
        match results.iter().find(|result| result.get("error").is_some_and(|error| !error.is_null())) {
            Some(refused) => bail!("a transaction by hand was refused: {refused}"),
            None => Ok(results),
        }
    }

    /// The next update of a monitor.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn update(&mut self) -> Result<Value> {
        if !self.early.is_empty() {
            return Ok(self.early.remove(0));
        }
        self.message()
    }

    /// Forgets updates that came while answers were waited for.
    pub fn forget(&mut self) {
        self.early.clear();
    }

    fn message(&mut self) -> Result<Value> {
        loop {
            let message = self.messages.next().context("the server hung up")??;
            if message["method"] != "echo" {
                return Ok(message);
            }
            let answer = json!({"id": message["id"], "result": message["params"], "error": null});
            self.stream.write_all(answer.to_string().as_bytes())?;
        }
    }
}
