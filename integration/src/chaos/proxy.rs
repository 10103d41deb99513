//! A wire between vifd and ovsdb-server that can be cut, slowed down and stopped. It knows nothing of what it carries.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use anyhow::{Context, Result};

/// How often a wire that is idle or stalled looks whether that is still so.
const LOOK: Duration = Duration::from_millis(5);

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What vifd says.
    ToServer,
    /// What ovsdb-server says.
    ToClient,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::ToServer => "towards ovsdb-server",
            Direction::ToClient => "towards vifd",
        })
    }
}

/// How a direction flows, over all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// As it comes.
    Free,
    /// So many bytes more, then the connection is closed in both directions and everything is free again.
    CutAfter(u64),
    /// Not at all.
    Stalled,
    /// So many bytes, a pause, so many bytes, …
    Trickle {
        /// At a time; at least one.
        bytes: usize,
        /// In between.
        pause: Duration,
    },
}

#[derive(Debug)]
struct Shared {
    server: PathBuf,
    flows: Mutex<[Flow; 2]>,
    cuts: AtomicU64,
    ended: AtomicBool,
}

impl Shared {
    fn flows(&self) -> MutexGuard<'_, [Flow; 2]> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wire. Dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    path: PathBuf,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on the socket `path` and connects whoever comes with the socket `server`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(path: &Path, server: &Path) -> Result<Proxy> {
        let listener = UnixListener::bind(path).with_context(|| format!("listening on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            flows: Mutex::new([Flow::Free; 2]),
            cuts: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let listening = spawn({
            let shared = Arc::clone(&shared);
            move || listen(&listener, &shared)
        });
        Ok(Proxy { shared, path: path.to_owned(), listening: Some(listening) })
    }

    /// Sets how a direction flows.
    pub fn set(&self, direction: Direction, flow: Flow) {
        self.shared.flows()[direction as usize] = flow;
    }

    /// How many connections were cut.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.listening.take() {
            // It panics at nothing; and if it did, the test has failed by then.
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

fn listen(listener: &UnixListener, shared: &Arc<Shared>) {
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    while !shared.ended.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((client, _)) => {
                // A server that is not there: the client is hung up on, as by a server that dies at once.
                if let Ok(pair) = connect(client, shared) {
                    pumps.extend(pair);
                }
            }
            Err(_) => sleep(LOOK),
        }
        pumps.retain(|pump| !pump.is_finished());
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

fn connect(client: UnixStream, shared: &Arc<Shared>) -> std::io::Result<[JoinHandle<()>; 2]> {
    client.set_nonblocking(false)?;
    let server = UnixStream::connect(&shared.server)?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
    }
    let start = |from: UnixStream, to: UnixStream, direction| {
        let shared = Arc::clone(shared);
        spawn(move || {
            // Whatever ended it: both sides learn of it.
            let _ = pump(&from, &to, direction, &shared);
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        })
    };
    let (client_too, server_too) = (client.try_clone()?, server.try_clone()?);
    Ok([start(client, server, Direction::ToServer), start(server_too, client_too, Direction::ToClient)])
}

/// Carries bytes until a side closes, the wire is cut, or the proxy ends.
fn pump(mut from: &UnixStream, mut to: &UnixStream, direction: Direction, shared: &Shared) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if waits(&error) && !shared.ended.load(Ordering::Relaxed) => continue,
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            if shared.ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            let flow = shared.flows()[direction as usize];
            let (now, pause) = match flow {
                Flow::Free => (rest.len(), None),
                Flow::CutAfter(left) => (rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)), None),
                Flow::Stalled => (0, Some(LOOK)),
                Flow::Trickle { bytes, pause } => (rest.len().min(bytes.max(1)), Some(pause)),
            };
            let written = match to.write(&rest[..now]) {
                Ok(written) => written,
                Err(error) if waits(&error) => 0,
                Err(error) => return Err(error),
            };
            rest = &rest[written..];
            if let Flow::CutAfter(left) = flow {
                let mut flows = shared.flows();
                let left = left.saturating_sub(written as u64);
                // Lifted meanwhile, it is not to come back.
                if flows[direction as usize] == flow {
                    flows[direction as usize] = if left == 0 { Flow::Free } else { Flow::CutAfter(left) };
                    if left == 0 {
                        shared.cuts.fetch_add(1, Ordering::Relaxed);
                        return Ok(());
                    }
                }
            }
            if let Some(pause) = pause {
                sleep(pause);
            }
        }
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A wire with a client at one end and the server's side of it at the other.
    fn wire(folder: &Path) -> Result<(Proxy, UnixListener, UnixStream, UnixStream)> {
        let listener = UnixListener::bind(folder.join("server"))?;
        let proxy = Proxy::start(&folder.join("proxy"), &folder.join("server"))?;
        let client = UnixStream::connect(folder.join("proxy"))?;
        let (server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        }
        Ok((proxy, listener, client, server))
    }

    #[test]
    fn it_is_cut_after_so_many_bytes_and_the_next_connection_is_whole() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (proxy, listener, mut client, mut server) = wire(folder.path())?;
        client.write_all(b"first")?;
        let mut five = [0; 5];
        server.read_exact(&mut five)?;
        proxy.set(Direction::ToServer, Flow::CutAfter(3));
        client.write_all(b"second")?;
        let mut rest = Vec::new();
        server.read_to_end(&mut rest)?;
        assert_eq!((&five, &*rest), (b"first", &b"sec"[..]));
        assert_eq!(client.read(&mut five)?, 0, "the client is hung up on, too");
        assert_eq!(proxy.cuts(), 1);
        let mut client = UnixStream::connect(folder.path().join("proxy"))?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"third")?;
        server.read_exact(&mut five)?;
        assert_eq!(&five, b"third");
        Ok(())
    }

    #[test]
    fn what_stalls_or_trickles_arrives_whole_in_the_end() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (proxy, _listener, mut client, mut server) = wire(folder.path())?;
        proxy.set(Direction::ToClient, Flow::Stalled);
        server.write_all(b"0123456789")?;
        client.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut ten = [0; 10];
        assert!(client.read(&mut ten).is_err_and(|error| waits(&error)));
        client.set_read_timeout(Some(Duration::from_secs(20)))?;
        let (pause, start) = (Duration::from_millis(20), Instant::now());
        proxy.set(Direction::ToClient, Flow::Trickle { bytes: 3, pause });
        client.read_exact(&mut ten)?;
        assert_eq!(&ten, b"0123456789");
        // In four pieces.
        assert!(start.elapsed() >= 3 * pause);
        Ok(())
    }
}
