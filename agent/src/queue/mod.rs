//! The connection with the queue, NATS JetStream: who we are to it, how the session is, and the buckets of keys and
//! values. Nothing here knows what a record says; that is the source's and the status writer's business.
//!
//! JetStream is spoken directly, over the client's plain requests and subscriptions: which subjects are used is what
//! the permissions of a host are made of (`docs/queue.md`), and a gap in what is delivered is to be seen here, not
//! papered over. The messages are those of NATS' ADR-8 (keys and values) and ADR-17 (ordered consumers).
//!
//! * [`key`]: names of hosts and VIFs in subjects
//! * [`credentials`]: secrets in files
//! * [`Bucket`]: reading, writing with compare-and-swap, deleting
//! * [`Watch`]: a whole list, and then every change

mod bucket;
pub mod credentials;
pub mod key;
mod watch;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{AuthError, Client, ConnectOptions, Event, ReconnectToServer, Server, ServerAddr, ServerError};
use rand::RngExt as _;
use tokio::sync::watch as channel;

pub use bucket::{Bucket, BucketInfo, Entry, Operation};
pub use credentials::Credentials;
pub use key::{BadKey, HostToken, Key};
pub use watch::{Happening, Lost, Watch};

/// How long a request may take; longer than a cluster takes to choose a new leader.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a silent server is asked for a sign of life; after two without, the connection is given up.
const PING: Duration = Duration::from_secs(10);
/// A connection that was lost is made again within this time, so that the hosts of a server that restarted do not all
/// come at once…
const FIRST: Duration = Duration::from_secs(1);
/// …and one that fails again and again at most this much later each time.
const LATEST: Duration = Duration::from_secs(10);
/// A refusal that the server told this long ago may be the cause of an answer that does not come.
const RECENT: Duration = Duration::from_secs(10);

/// Where the queue is, and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Addresses, `nats://HOST:PORT` or `tls://HOST:PORT`; at least one, without user or password in it.
    pub servers: Vec<String>,
    /// Who we are.
    pub credentials: Credentials,
    /// Certificates of the authorities that may have signed the server's, PEM; the system's when empty. With one,
    /// every connection is TLS.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// What the server shows as the name of the connection.
    pub name: String,
    /// What the subjects of answers begin with. Nobody else may listen there.
    pub inbox: String,
}

impl Options {
    /// A connection of this host's agent: its answers come where only this host may listen.
    #[must_use]
    pub fn of_host(servers: Vec<String>, host: &HostToken) -> Options {
        Options {
            servers,
            credentials: Credentials::None,
            ca: None,
            certificate: None,
            name: format!("vifd on {}", host.host()),
            inbox: format!("_INBOX_vifd.{host}"),
        }
    }
}

/// How the session is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Whether there is a connection.
    pub up: bool,
    /// How many connections there were; a greater number than before means that something may have been missed.
    pub connects: u64,
    /// For people: with which server, or why not.
    pub detail: String,
}

/// What goes wrong with the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// A file with a secret or a certificate is of no use.
    #[error("{} {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// One sentence without its subject, and without anything that is in the file.
        reason: String,
    },
    /// An address is none.
    #[error("{0:?} is no address of a NATS server: nats://HOST:PORT or tls://HOST:PORT, without user and password")]
    Server(String),
    /// The connection is down, or the server does not answer.
    #[error("the queue does not answer {attempt}{}", Because(hint.as_deref()))]
    NoAnswer {
        /// What was asked.
        attempt: String,
        /// What the server said of late that may be why.
        hint: Option<String>,
    },
    /// Nobody serves the subject: there is no such bucket, or no JetStream.
    #[error("nobody takes {attempt}: there is no such bucket, or JetStream is not enabled for this account")]
    NoResponders {
        /// What was asked.
        attempt: String,
    },
    /// The server says no.
    #[error("the queue refuses {attempt}: {description} ({code})")]
    Refused {
        /// What was asked.
        attempt: String,
        /// JetStream's number (`err_code`).
        code: u64,
        /// Its words.
        description: String,
    },
    /// The key is not of the revision that was expected; somebody else wrote it.
    #[error("{key} is not of revision {expected} any more")]
    WrongRevision {
        /// Which key.
        key: String,
        /// The revision that was expected; 0 is none.
        expected: u64,
    },
    /// There is no such bucket.
    #[error("there is no bucket {0:?} in the queue")]
    NoBucket(String),
    /// The value is longer than the server takes.
    #[error("{attempt} is longer than the {max} bytes that the server takes")]
    TooLong {
        /// What was asked.
        attempt: String,
        /// The limit, octets.
        max: usize,
    },
    /// The answer is not one to what was asked.
    #[error("the queue answers {attempt} with what is no answer: {reason}")]
    Garbled {
        /// What was asked.
        attempt: String,
        /// One sentence.
        reason: String,
    },
}

struct Because<'h>(Option<&'h str>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, " (it says: {hint})"))
    }
}

/// A connection that is made again whenever it is lost, for as long as one of its clones is there.
#[derive(Clone, Debug)]
pub struct Queue {
    client: Client,
    session: channel::Receiver<Session>,
    told: Arc<Told>,
}

/// What is known beside the session, for messages.
#[derive(Debug, Default)]
struct Told {
    /// The server that was last tried, and why the one before it would not do.
    trying: Mutex<(String, Option<String>)>,
    /// What the server refused of late, and when.
    refusal: Mutex<Option<(tokio::time::Instant, String)>>,
    /// Why there is nothing to show to the server.
    credentials: Mutex<Option<String>>,
}

/// No holder of these panics with them half written: each is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Begins to connect, and goes on for as long as it takes.
    ///
    /// # Errors
    /// An address is none, or a file of secrets is of no use right now: whoever starts should know.
    pub async fn connect(options: Options) -> Result<Queue, QueueError> {
        // One provider of cryptography in the process; that it is there already is as good.
        let _ = async_nats::rustls::crypto::ring::default_provider().install_default();
        let servers = addresses(&options.servers)?;
        options.credentials.prove(b"")?;
        if let Some((_, key)) = &options.certificate {
            credentials::secret(key)?;
        }
        let told = Arc::new(Told::default());
        let begun = Session { detail: format!("{}, connecting", options.servers.join(", ")), ..Session::default() };
        let (sender, session) = channel::channel(begun);
        let mut connect = ConnectOptions::with_auth_callback({
            let (told, credentials) = (Arc::clone(&told), options.credentials.clone());
            move |nonce| {
                let (told, credentials) = (Arc::clone(&told), credentials.clone());
                async move {
                    let proof = tokio::task::spawn_blocking(move || credentials.prove(&nonce)).await;
                    let proof = proof.map_err(AuthError::new)?;
                    *lock(&told.credentials) = proof.as_ref().err().map(ToString::to_string);
                    proof.map_err(AuthError::new)
                }
            }
        })
        .name(&options.name)
        .custom_inbox_prefix(&options.inbox)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(CONNECT)
        .request_timeout(Some(PATIENCE))
        .ping_interval(PING)
        .reconnect_to_server_callback({
            let told = Arc::clone(&told);
            move |pool, _| {
                let next = choose(&pool);
                if let Some((server, _)) = &next {
                    let why = lock(&told.credentials).clone().or_else(|| server.last_error.clone());
                    *lock(&told.trying) = (server.to_string(), why);
                }
                std::future::ready(
                    next.map(|(server, delay)| ReconnectToServer { addr: server.addr, delay: Some(delay) }),
                )
            }
        })
        .event_callback({
            let told = Arc::clone(&told);
            move |event| {
                follow(&sender, &told, event);
                std::future::ready(())
            }
        });
        if let Some(ca) = &options.ca {
            connect = connect.add_root_certificates(ca.clone()).require_tls(true);
        }
        if let Some((certificate, key)) = &options.certificate {
            connect = connect.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
        }
        let client = connect.connect(servers).await.map_err(|_| QueueError::Server(options.servers.join(", ")))?;
        Ok(Queue { client, session, told })
    }

    /// How the session is, as it changes.
    #[must_use]
    pub fn session(&self) -> channel::Receiver<Session> {
        self.session.clone()
    }

    /// Waits until there is a connection. Answers how it is then; `None` when the client has ended.
    pub async fn up(&self) -> Option<Session> {
        self.session.clone().wait_for(|session| session.up).await.ok().map(|session| session.clone())
    }

    /// A bucket of the queue, which need not be there. Its name is letters, digits, `-` and `_`.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Bucket {
        Bucket::new(self.clone(), name)
    }

    /// What the server refused of late, if anything.
    fn hint(&self) -> Option<String> {
        let session = self.session.borrow();
        if !session.up {
            return Some(session.detail.clone());
        }
        let refusal = lock(&self.told.refusal);
        refusal.as_ref().filter(|(at, _)| at.elapsed() < RECENT).map(|(_, words)| words.clone())
    }
}

fn addresses(servers: &[String]) -> Result<Vec<ServerAddr>, QueueError> {
    if servers.is_empty() {
        return Err(QueueError::Server(String::new()));
    }
    servers.iter().map(|text| address(text)).collect()
}

/// Reads one address. A secret in it would end up in logs, so there must be none.
pub(crate) fn address(text: &str) -> Result<ServerAddr, QueueError> {
    let bad = || QueueError::Server(text.rsplit('@').next().unwrap_or_default().to_owned());
    let address: ServerAddr = text.parse().map_err(|_| bad())?;
    let secret = address.username().is_some() || address.password().is_some() || text.contains('@');
    if secret || !["nats", "tls"].contains(&address.scheme()) || address.host().is_empty() {
        return Err(bad());
    }
    Ok(address)
}

/// The server to try next and how long from now: one of those that failed least.
fn choose(pool: &[Server]) -> Option<(Server, Duration)> {
    let least = pool.iter().map(|server| server.failed_attempts).min()?;
    let candidates: Vec<&Server> = pool.iter().filter(|server| server.failed_attempts == least).collect();
    let mut rng = rand::rng();
    let server = (*candidates.get(rng.random_range(0..candidates.len()))?).clone();
    let fresh = pool.iter().all(|server| !server.did_connect && server.failed_attempts == 0);
    let delay = if fresh { Duration::ZERO } else { backoff(least, rng.random_range(0.0..1.0)) };
    Some((server, delay))
}

/// How long to wait when every server has failed `failed` times; `share` is a random number from 0 to 1.
fn backoff(failed: usize, share: f64) -> Duration {
    if failed == 0 {
        return FIRST.mul_f64(share);
    }
    let most = FIRST.saturating_mul(1 << failed.min(8)).min(LATEST);
    // Half of it at least: a server that is away is not there any sooner for being asked all the time.
    most.mul_f64(0.5 + share / 2.0)
}

fn follow(session: &channel::Sender<Session>, told: &Told, event: Event) {
    match event {
        Event::Connected => {
            let server = lock(&told.trying).0.clone();
            session.send_modify(|session| {
                session.up = true;
                session.connects += 1;
                session.detail = format!("{server}, connected");
            });
            tracing::info!(%server, "connected with the queue");
        }
        Event::Disconnected => {
            let server = lock(&told.trying).0.clone();
            session.send_modify(|session| {
                session.up = false;
                session.detail = format!("{server}, connection lost; reconnecting");
            });
            tracing::warn!(%server, "the connection with the queue was lost");
        }
        Event::ServerError(ServerError::Other(words)) => {
            *lock(&told.refusal) = Some((tokio::time::Instant::now(), words));
        }
        Event::ClientError(error) => {
            let (server, why) = lock(&told.trying).clone();
            let why = lock(&told.credentials).clone().or(why).unwrap_or_else(|| error.to_string());
            session.send_if_modified(|session| {
                let detail = format!("{server}, reconnecting: {why}");
                let news = !session.up && session.detail != detail;
                if news {
                    tracing::warn!("cannot connect with the queue at {server}: {why}");
                    session.detail = detail;
                }
                news
            });
        }
        Event::SlowConsumer(_) | Event::ServerError(_) | Event::LameDuckMode | Event::Draining | Event::Closed => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_an_address_is_refused_and_not_repeated() {
        for good in ["nats://10.0.0.1:4222", "tls://nats.example.org:4222", "nats://[::1]:4222", "localhost"] {
            address(good).unwrap();
        }
        for bad in
            ["nats://user:hunter2@host:4222", "nats://hunter2@host", "ws://host:80", "http://host", "", "nats://"]
        {
            let said = address(bad).expect_err(bad).to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_fleet_comes_back_in_the_course_of_time() {
        assert_eq!((backoff(0, 0.0), backoff(0, 1.0)), (Duration::ZERO, FIRST));
        for failed in 1..100 {
            let (least, most) = (backoff(failed, 0.0), backoff(failed, 1.0));
            assert!(least >= FIRST && most <= LATEST && most == least * 2, "{failed}: {least:?} {most:?}");
            assert!(backoff(failed + 1, 0.5) >= backoff(failed, 0.5));
        }
        assert_eq!(backoff(usize::MAX, 1.0), LATEST);
    }
}
