//! The other end of the API, for the command line: one connection per request over the unix socket.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::body::{ErrorBody, Event};

/// For an answer to begin, beyond the time that the request itself asks to wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens on it.
    #[error("nothing listens at {socket}: is vifd running, and is this its socket (--socket, --config)?")]
    Absent {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// The socket may not be opened.
    #[error("no permission to open {socket}: be root or in the socket's group")]
    Forbidden {
        /// Path of the socket.
        socket: PathBuf,
    },
    /// Nobody answers.
    #[error("the agent cannot be reached at {socket}: {reason}")]
    Unreachable {
        /// Path of the socket.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
    /// An answer that is an error.
    #[error("{}", .body.error.message)]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What it says.
        body: Box<ErrorBody>,
    },
    /// An answer that makes no sense.
    #[error("the agent's answer makes no sense: {0}")]
    Garbled(String),
}

impl ClientError {
    /// Whether the agent was not spoken to at all.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        use ClientError::{Absent, Forbidden, Garbled, Refused, Unreachable};
        match self {
            Absent { .. } | Forbidden { .. } | Unreachable { .. } => true,
            Refused { .. } | Garbled(_) => false,
        }
    }

    /// Whether the time to wait ran out.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, ClientError::Refused { status: StatusCode::GATEWAY_TIMEOUT, .. })
    }

    /// Whether what was asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Refused { status: StatusCode::NOT_FOUND, .. })
    }
}

/// The way to an agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent that listens on `socket`. Nothing is sent yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Client {
        Client { socket }
    }

    fn unreachable(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Unreachable { socket: self.socket.clone(), reason: reason.to_string() }
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::Absent { socket: self.socket.clone() }
            }
            io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket: self.socket.clone() },
            _ => self.unreachable(&error),
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&error))?;
        // Ends with the response's body.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "vifd")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Garbled(error.to_string()))?;
        match tokio::time::timeout(patience, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(&error)),
            Err(_) => Err(self.unreachable(&"it does not answer")),
        }
    }

    /// Sends a request and reads the whole answer. `waiting` is the time that the request itself asks to wait.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bytes(
        &self,
        method: Method,
        target: &str,
        body: Vec<u8>,
        waiting: Duration,
    ) -> Result<Vec<u8>, ClientError> {
        let answer = self.send(method, target, body, waiting + PATIENCE).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await.map_err(|error| self.unreachable(&error))?.to_bytes();
        if status.is_success() { Ok(bytes.into()) } else { Err(refused(status, &bytes)) }
    }

    /// Gets something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        decode(&self.bytes(Method::GET, target, Vec::new(), Duration::ZERO).await?)
    }

    /// Gives an order.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        decode(&self.bytes(Method::POST, target, Vec::new(), Duration::ZERO).await?)
    }

    /// Follows a list of VIFs. `target` asks for `watch=true`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch(&self, target: &str) -> Result<Events, ClientError> {
        let answer = self.send(Method::GET, target, Vec::new(), PATIENCE).await?;
        let status = answer.status();
        if !status.is_success() {
            let bytes = answer.into_body().collect().await.map_err(|error| self.unreachable(&error))?.to_bytes();
            return Err(refused(status, &bytes));
        }
        Ok(Events { body: answer.into_body(), buffer: Vec::new(), given: 0 })
    }
}

fn refused(status: StatusCode, bytes: &[u8]) -> ClientError {
    match serde_json::from_slice(bytes) {
        Ok(body) => ClientError::Refused { status, body: Box::new(body) },
        Err(_) => ClientError::Garbled(format!("{status}: {}", String::from_utf8_lossy(bytes).trim())),
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes).map_err(|error| ClientError::Garbled(error.to_string()))
}

/// The lines of a watched list.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    /// What came and was not given away; up to `given` it was.
    buffer: Vec<u8>,
    given: usize,
}

impl Events {
    /// The next event; `None` when the agent ended the list.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            let rest = &self.buffer[self.given..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let event = decode(&rest[..end]);
                self.given += end + 1;
                return event.map(Some);
            }
            self.buffer.drain(..self.given);
            self.given = 0;
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(ClientError::Garbled(error.to_string())),
                None => return Ok(None),
            }
        }
    }
}
