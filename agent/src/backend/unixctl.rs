//! ovs-vswitchd's control socket, as `ovs-appctl(8)` speaks to it: JSON-RPC 1.0 in the framing of OVSDB (OVS's
//! `lib/unixctl.c`). One question for each connection. What is asked is the business of whoever asks; nothing that is
//! asked here changes anything.

mod lines;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ovsdb::framing::{FramingError, Limits, Splitter};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use self::lines::{Answer as LongAnswer, Progress};
use super::ovs::control_sockets;

/// For the whole of a question. ovs-vswitchd answers between two rounds of its main loop, which take seconds while it
/// makes thousands of ports.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What an answer may be: the trace of a flood to 4,000 ports takes a megabyte.
const LIMITS: Limits = Limits { max_message: 8 << 20, max_depth: 8, max_values: 1 << 20, max_rows: 0 };

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no socket of an ovs-vswitchd.
    #[error("there is no ovs-vswitchd.PID.ctl in {}: ovs-vswitchd is not running, or ovsdb.rundir is another directory", .0.display())]
    Absent(PathBuf),
    /// The socket may not be used, or nobody listens on it.
    #[error("cannot connect to {}: {source}{}", path.display(), remedy(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to {} broke: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("{} did not answer within {after:?}: ovs-vswitchd is busy, or hangs", path.display())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The time that it had.
        after: Duration,
    },
    /// It answered something else than unixctl does.
    #[error("{} does not speak as ovs-vswitchd does: {reason}", path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It said no.
    #[error("ovs-vswitchd refuses: {0}")]
    Refused(String),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (run `systemd-tmpfiles --create vifd.conf`, and see `vifd doctor`)",
        io::ErrorKind::ConnectionRefused => " (its ovs-vswitchd is dead)",
        _ => "",
    }
}

#[derive(Deserialize)]
struct Answer {
    result: Option<String>,
    error: Option<String>,
}

/// Most characters of a refusal that are told.
const WORDS: usize = 2000;

/// Has ovs-vswitchd carry out a command (`ovs-vswitchd(8)`, "RUNTIME MANAGEMENT COMMANDS") and answers what it says.
///
/// # Errors
/// See [`ControlError`].
pub async fn ask(rundir: &Path, method: &str, arguments: &[&str], patience: Duration) -> Result<String, ControlError> {
    let (path, stream) = connect(rundir).await?;
    match tokio::time::timeout(patience, converse(&path, stream, method, arguments)).await {
        Ok(answer) => answer,
        Err(_) => Err(ControlError::Timeout { path, after: patience }),
    }
}

/// Octets of a long answer that are read in one go.
const PIECE: usize = 64 << 10;

/// The same for answers of any length: hands on the lines of what it says while they come, `None` for one of more than
/// `longest` octets, until `sink` has had enough. Answers whether that was all.
///
/// # Errors
/// See [`ControlError`].
pub async fn ask_for_lines(
    rundir: &Path,
    method: &str,
    arguments: &[&str],
    patience: Duration,
    longest: usize,
    sink: &mut (impl FnMut(Option<&str>) -> ControlFlow<()> + Send),
) -> Result<bool, ControlError> {
    let (path, mut stream) = connect(rundir).await?;
    let read = async {
        let broke = |source| ControlError::Io { path: path.clone(), source };
        let garbled = |reason: &str| ControlError::Garbled { path: path.clone(), reason: reason.to_owned() };
        stream.write_all(question(method, arguments).as_bytes()).await.map_err(broke)?;
        let (mut answer, mut piece) = (LongAnswer::new(longest), vec![0; PIECE]);
        loop {
            let length = stream.read(&mut piece).await.map_err(broke)?;
            if length == 0 {
                return Err(garbled("it hung up in the middle of an answer"));
            }
            match answer.take(&piece[..length], sink) {
                Progress::More => {}
                Progress::Whole => return Ok(true),
                Progress::Enough => return Ok(false),
                Progress::Refused(words) => return Err(ControlError::Refused(words.chars().take(WORDS).collect())),
                Progress::Garbled(reason) => return Err(garbled(reason)),
            }
        }
    };
    match tokio::time::timeout(patience, read).await {
        Ok(answer) => answer,
        Err(_) => Err(ControlError::Timeout { path: path.clone(), after: patience }),
    }
}

fn question(method: &str, arguments: &[&str]) -> String {
    serde_json::json!({"id": 0, "method": method, "params": arguments}).to_string()
}

/// The socket that somebody listens on; those of the dead stay behind.
async fn connect(rundir: &Path) -> Result<(PathBuf, UnixStream), ControlError> {
    let mut failed = ControlError::Absent(rundir.to_owned());
    for path in control_sockets(rundir) {
        match UnixStream::connect(&path).await {
            Ok(stream) => return Ok((path, stream)),
            Err(source) => {
                // What may not be used says more than what is dead.
                let dead = source.kind() == io::ErrorKind::ConnectionRefused;
                if !dead || matches!(failed, ControlError::Absent(_)) {
                    failed = ControlError::Connect { path, source };
                }
            }
        }
    }
    Err(failed)
}

async fn converse(
    path: &Path,
    mut stream: UnixStream,
    method: &str,
    arguments: &[&str],
) -> Result<String, ControlError> {
    let broke = |source| ControlError::Io { path: path.to_owned(), source };
    let garbled = |reason: String| ControlError::Garbled { path: path.to_owned(), reason };
    stream.write_all(question(method, arguments).as_bytes()).await.map_err(broke)?;
    let mut splitter = Splitter::new(LIMITS);
    let message = loop {
        if let Some(message) = splitter.next_message().map_err(|error: FramingError| garbled(error.to_string()))? {
            break message;
        }
        if stream.read_buf(splitter.buffer()).await.map_err(broke)? == 0 {
            return Err(garbled("it hung up without an answer".to_owned()));
        }
    };
    let answer: Answer = serde_json::from_slice(&message).map_err(|error| garbled(error.to_string()))?;
    match answer {
        Answer { error: Some(words), .. } => Err(ControlError::Refused(words.trim().chars().take(WORDS).collect())),
        Answer { result: Some(text), .. } => Ok(text),
        Answer { .. } => Err(garbled("it answered neither a result nor an error".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Somebody at the socket who answers the first question with these bytes, and then says no more.
    async fn answered(bytes: Vec<u8>, hangs_up: bool) -> Result<String, ControlError> {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("ovs-vswitchd.7.ctl")).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 1000];
            let length = stream.read(&mut question).await.unwrap();
            let question: serde_json::Value = serde_json::from_slice(&question[..length]).unwrap();
            assert_eq!(question, serde_json::json!({"id": 0, "method": "version", "params": ["a", "b c"]}));
            // Whoever asked may have heard enough.
            let _ = stream.write_all(&bytes).await;
            if !hangs_up {
                std::future::pending::<()>().await;
            }
        });
        let answer = ask(directory.path(), "version", &["a", "b c"], Duration::from_millis(500)).await;
        server.abort();
        answer
    }

    fn said(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[tokio::test]
    async fn answers_and_refusals() {
        let text = answered(said(r#"{"error":null,"id":0,"result":"ovs 3.1\n"}"#), false).await.unwrap();
        assert_eq!(text, "ovs 3.1\n");
        let error = answered(said(r#"{"error":"no such command\n","id":0,"result":null}"#), false).await.unwrap_err();
        assert_eq!(error.to_string(), "ovs-vswitchd refuses: no such command");
    }

    #[tokio::test]
    async fn whoever_is_not_ovs_vswitchd_is_given_up() {
        let endless = [said(r#"{"id":0,"error":null,"result":""#), vec![b'x'; 9 << 20]].concat();
        for (bytes, hangs_up, word) in [
            (said("HTTP/1.1 400"), false, "begins with byte"),
            (said(r#"{"id":0,"result":7,"error":null}"#), false, "does not speak as"),
            (said(r#"{"id":0}"#), false, "neither"),
            (said(r#"{"id":0,"res"#), true, "hung up"),
            (said(""), true, "hung up"),
            (said(r#"{"id":0,"res"#), false, "did not answer within"),
            (endless, false, "exceeds"),
            (said(&"{\"a\":".repeat(50)), false, "deeper"),
        ] {
            let error = answered(bytes, hangs_up).await.unwrap_err().to_string();
            assert!(error.contains(word), "{error} without {word:?}");
        }
    }

    #[tokio::test]
    async fn the_socket_is_named_when_there_is_none_or_a_dead_one() {
        let directory = tempfile::tempdir().unwrap();
        let error = ask(directory.path(), "version", &[], PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains("ovs-vswitchd.PID.ctl") && error.contains("ovsdb.rundir"), "{error}");
        let path = directory.path().join("ovs-vswitchd.7.ctl");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let error = ask(directory.path(), "version", &[], PATIENCE).await.unwrap_err().to_string();
        assert!(error.contains("ovs-vswitchd.7.ctl") && error.contains("dead"), "{error}");
    }
}
