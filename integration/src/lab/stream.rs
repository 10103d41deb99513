//! A TCP connection from one namespace to another that data goes through at a steady, moderate pace: a pace that a switch
//! in user space keeps up with, so that what is sent twice was lost for another reason.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::namespace::Namespace;

/// What is sent at once, and the pause after it: 1 MB/s. The socket of a port holds a fifth of that, so a switch that is not
/// scheduled for 200 ms on a busy machine loses nothing.
const PIECE: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(15);
/// How often a blocked end looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(100);
/// How long a connection may take to come about.
const LIMIT: Duration = Duration::from_secs(5);

/// Such a connection. Dropping it leaves its threads to end by themselves.
#[derive(Debug)]
pub struct Stream {
    from: String,
    lost: u64,
    counts: Arc<Counts>,
    ends: [JoinHandle<std::io::Result<()>>; 2],
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    stop: AtomicBool,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// Octets that the sender's kernel took.
    pub sent: u64,
    /// Octets that the receiver got.
    pub received: u64,
    /// Segments that the sender's kernel sent again because they had not arrived, over all connections of its namespace.
    pub lost: u64,
}

impl Stream {
    /// Connects to `address` in the namespace `to`, and begins to send.
    ///
    /// # Errors
    /// When no connection comes about within five seconds.
    pub fn begin(from: &Namespace, to: &Namespace, address: SocketAddr) -> Result<Stream> {
        let listener = to.enter(|| TcpListener::bind(address).with_context(|| format!("listening on {address}")))?;
        let client = from.enter(|| {
            TcpStream::connect_timeout(&address, LIMIT).with_context(|| format!("connecting to {address}"))
        })?;
        let (server, _) = listener.accept()?;
        let lost = losses(from)?;
        let counts = Arc::new(Counts::default());
        let (sender, receiver) = (Arc::clone(&counts), Arc::clone(&counts));
        let ends =
            [std::thread::spawn(move || send(client, &sender)), std::thread::spawn(move || receive(server, &receiver))];
        Ok(Stream { from: from.name().to_owned(), lost, counts, ends })
    }

    /// Octets received by now.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.counts.received.load(Ordering::Relaxed)
    }

    /// Waits until so many octets more have come; answers whether they did within `limit`.
    #[must_use]
    pub fn goes_on(&self, octets: u64, limit: Duration) -> bool {
        let (start, before) = (Instant::now(), self.received());
        while self.received() < before + octets {
            if start.elapsed() > limit {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Ends it and counts.
    ///
    /// # Errors
    /// When the connection broke.
    pub fn end(self) -> Result<Streamed> {
        self.counts.stop.store(true, Ordering::Relaxed);
        for end in self.ends {
            end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("an end of the stream")?;
        }
        let lost = losses(&Namespace::existing(&self.from)?)?.saturating_sub(self.lost);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok(Streamed { sent: count(&self.counts.sent), received: count(&self.counts.received), lost })
    }
}

fn send(mut stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    stream.set_write_timeout(Some(LOOK))?;
    let piece = [0x5a; PIECE];
    while !counts.stop.load(Ordering::Relaxed) {
        match stream.write(&piece) {
            Ok(count) => drop(counts.sent.fetch_add(count as u64, Ordering::Relaxed)),
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(PAUSE);
    }
    stream.shutdown(std::net::Shutdown::Write)
}

/// Receives until the other end says that it is done, or nothing has come for a while after it shall stop.
fn receive(mut stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    let mut buffer = [0; PIECE];
    let mut silent = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                silent = 0;
                counts.received.fetch_add(count as u64, Ordering::Relaxed);
            }
            Err(error) if is_pause(&error) && counts.stop.load(Ordering::Relaxed) => {
                silent += 1;
                if silent > 20 {
                    return Ok(());
                }
            }
            Err(error) if is_pause(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Segments of TCP that a namespace sent again, less those that the other end says it had already (RFC 2883): on a busy
/// machine an acknowledgement may come too late.
fn losses(namespace: &Namespace) -> Result<u64> {
    let read = |name: &'static str| {
        namespace.enter(move || Ok(std::fs::read_to_string(format!("/proc/thread-self/net/{name}"))?))
    };
    let again = counter(&read("snmp")?, "Tcp: ", "RetransSegs")?;
    Ok(again.saturating_sub(counter(&read("netstat")?, "TcpExt: ", "TCPDSACKRecv")?))
}

/// A counter of `/proc/net/snmp` or `netstat`: a line of names, then one of values.
fn counter(text: &str, head: &str, name: &str) -> Result<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(head));
    let (names, values) = lines.next().zip(lines.next()).with_context(|| format!("no counters of {head}"))?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, value) = pairs.find(|(found, _)| *found == name).with_context(|| format!("no {name}"))?;
    Ok(value.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_the_value_below_its_name() -> Result<()> {
        let text = "Ip: A B\nIp: 1 2\nTcp: A RetransSegs B\nTcp: 3 4 5\n";
        assert_eq!(counter(text, "Tcp: ", "RetransSegs")?, 4);
        assert!(counter(text, "Udp: ", "A").is_err() && counter(text, "Ip: ", "C").is_err());
        Ok(())
    }
}
