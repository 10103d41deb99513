//! An ovsdb-server that a test plays: whatever it does to a client, until it is told to be good. Then it is a wire to
//! the real one.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::{Deserializer, Value};

/// What the server does with a connection. It ends when a write fails, which it does at the latest when the server has
/// become good.
pub type Mischief = fn(Wire) -> io::Result<()>;

/// One connection of the client's, and the way to the real server.
#[derive(Debug)]
pub struct Wire {
    /// The client.
    pub client: UnixStream,
    real: PathBuf,
}

/// The server. It listens until the test ends.
#[derive(Debug)]
pub struct Hostile {
    shared: Arc<Shared>,
    path: PathBuf,
}

#[derive(Debug)]
struct Shared {
    real: PathBuf,
    mischief: Mischief,
    good: AtomicBool,
    connections: AtomicUsize,
    open: Mutex<Vec<UnixStream>>,
}

impl Hostile {
    /// Listens at `path` in front of the real server's socket.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub fn listen(path: &Path, real: &Path, mischief: Mischief) -> Result<Hostile> {
        let listener = UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))?;
        let shared = Arc::new(Shared {
            real: real.to_owned(),
            mischief,
            good: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let server = Arc::clone(&shared);
        // Both end with the test's process at the latest; threads that wait cost nothing until then.
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let server = Arc::clone(&server);
                thread::spawn(move || server.serve(client));
            }
        });
        Ok(Hostile { shared, path: path.to_owned() })
    }

    /// Where it listens, as a client dials it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("unix:{}", self.path.display())
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Hangs up, and is good from now on.
    pub fn be_good(&self) {
        self.shared.good.store(true, Ordering::Relaxed);
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        for client in open.drain(..) {
            // One that is gone already needs no end.
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn serve(&self, client: UnixStream) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let wire = Wire { client, real: self.real.clone() };
        // How a connection ends is for the client to tell.
        if self.good.load(Ordering::Relaxed) {
            let _ = wire.pass();
            return;
        }
        if let Ok(client) = wire.client.try_clone() {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
        let _ = (self.mischief)(wire);
    }
}

impl Wire {
    /// Waits until the client has said something, as a server does.
    ///
    /// # Errors
    /// When it hangs up.
    pub fn hear(&mut self) -> io::Result<()> {
        match self.client.read(&mut [0; 4096])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Sends text.
    ///
    /// # Errors
    /// When the client has hung up.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        self.client.write_all(text.as_bytes())
    }

    /// Passes everything on in both directions.
    ///
    /// # Errors
    /// When one of them ends.
    pub fn pass(self) -> io::Result<()> {
        let real = UnixStream::connect(&self.real)?;
        let (mut from_client, mut to_real) = (self.client.try_clone()?, real.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_real);
            to_real.shutdown(Shutdown::Both)
        });
        let (mut from_real, mut to_client) = (real, self.client);
        let ended = io::copy(&mut from_real, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
        ended.map(drop)
    }

    /// Passes everything on in both directions, and calls `before` with each call of the client before the real server
    /// gets it.
    ///
    /// # Errors
    /// When one of them ends.
    pub fn pass_watched(self, before: fn(&Value)) -> io::Result<()> {
        let real = UnixStream::connect(&self.real)?;
        let (from_client, mut to_real) = (self.client.try_clone()?, real.try_clone()?);
        thread::spawn(move || {
            for call in Deserializer::from_reader(io::BufReader::new(from_client)).into_iter::<Value>() {
                let Ok(call) = call else { break };
                before(&call);
                if to_real.write_all(call.to_string().as_bytes()).is_err() {
                    break;
                }
            }
            to_real.shutdown(Shutdown::Both)
        });
        let (mut from_real, mut to_client) = (real, self.client);
        let ended = io::copy(&mut from_real, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
        ended.map(drop)
    }

    /// Passes on what the client asks for if `asks` says so, and every message of the real server, changed by
    /// `changed`, until that has given the contents of the database. Then the rest is the caller's.
    ///
    /// # Errors
    /// When one of the two hangs up.
    pub fn pass_until_contents(&mut self, asks: fn(&Value) -> bool, changed: fn(&mut Value)) -> io::Result<()> {
        let real = UnixStream::connect(&self.real)?;
        let (from_client, mut to_real) = (self.client.try_clone()?, real.try_clone()?);
        thread::spawn(move || {
            for call in Deserializer::from_reader(io::BufReader::new(from_client)).into_iter::<Value>() {
                let Ok(call) = call else { break };
                if asks(&call) && to_real.write_all(call.to_string().as_bytes()).is_err() {
                    break;
                }
            }
            to_real.shutdown(Shutdown::Both)
        });
        for message in Deserializer::from_reader(io::BufReader::new(real)).into_iter::<Value>() {
            let mut message = message?;
            changed(&mut message);
            self.say(&message.to_string())?;
            // `[found, last transaction, contents]` (ovsdb-server(7), 4.1.15)
            if message["result"].as_array().is_some_and(|result| result.len() == 3 && result[2].is_object()) {
                return Ok(());
            }
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
