//! Where a server is and how to get a byte stream to it: `unix:`, `tcp:` and `ssl:` as ovsdb(7) writes
//! them. What goes over the stream is for [`crate::session`]; the TLS configuration is in [`crate::tls`].

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::tls::{Tls, open_ssl, open_tcp};

/// The port that IANA gave OVSDB, for endpoints that name none.
pub const DEFAULT_PORT: u16 = 6640;

/// A server listens on the socket that it has made within this time.
const NEW: Duration = Duration::from_secs(1);
/// Between two attempts meanwhile.
const SETTLING: Duration = Duration::from_millis(10);

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `unix:PATH`
    Unix(PathBuf),
    /// `tcp:HOST[:PORT]`
    Tcp(Host, u16),
    /// `ssl:HOST[:PORT]`
    Ssl(Host, u16),
}

/// The host part of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address; IPv6 is written in brackets.
    Ip(IpAddr),
    /// A name to be resolved at every attempt to connect.
    Name(String),
}

impl Host {
    /// As it is dialled: an address without brackets.
    fn dialled(&self) -> String {
        match self {
            Self::Ip(ip) => ip.to_string(),
            Self::Name(name) => name.clone(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
            Self::Ssl(host, port) => write!(f, "ssl:{host}:{port}"),
        }
    }
}

/// Text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no OVSDB endpoint: {problem}")]
pub struct EndpointError {
    text: String,
    problem: &'static str,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let fail = |problem| EndpointError { text: text.to_owned(), problem };
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(fail("expected unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT"));
        };
        match scheme {
            "unix" if rest.is_empty() => Err(fail("the path is empty")),
            "unix" => Ok(Self::Unix(PathBuf::from(rest))),
            "tcp" => host_and_port(rest).map(|(host, port)| Self::Tcp(host, port)).map_err(fail),
            "ssl" => host_and_port(rest).map(|(host, port)| Self::Ssl(host, port)).map_err(fail),
            _ => Err(fail("expected unix:, tcp: or ssl:")),
        }
    }
}

fn host_and_port(text: &str) -> Result<(Host, u16), &'static str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| "not an IPv6 address between the brackets")?;
        let port = match rest {
            "" => None,
            rest => Some(rest.strip_prefix(':').ok_or("expected :PORT after the bracket")?),
        };
        (Host::Ip(ip.into()), port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address belongs in brackets");
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        if host.is_empty() {
            return Err("the host is empty");
        }
        (host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip), port)
    };
    match port.map_or(Ok(DEFAULT_PORT), str::parse) {
        Ok(0) | Err(_) => Err("the port is not a number from 1 to 65535"),
        Ok(port) => Ok((host, port)),
    }
}

/// A connected byte stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A future of a connected stream.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// A future that ends when there may be a server again.
pub type Comeback = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Something that gives a byte stream to a server: an endpoint, or a test's in-memory pipe.
pub trait Connect: Send + Sync {
    /// Connects anew.
    fn connect(&self) -> Connecting<'_>;
    /// Ends when an attempt that failed is worth another one now, whatever delay is under way. This is called before
    /// [`Connect::connect`], so that nothing which happens during an attempt is missed. Never ends for those who have
    /// no means to know, which is what happens unless it is said otherwise.
    fn comeback(&self) -> Comeback {
        Box::pin(std::future::pending())
    }
    /// Where to, for messages.
    fn target(&self) -> String;
}

/// An endpoint with what it takes to connect there.
#[derive(Clone, Debug)]
pub struct Dial {
    endpoint: Endpoint,
    tls: Option<Tls>,
}

impl Dial {
    /// `tls` is used by `ssl:` endpoints only, which cannot do without.
    #[must_use]
    pub fn new(endpoint: Endpoint, tls: Option<Tls>) -> Self {
        Self { endpoint, tls }
    }

    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match &self.endpoint {
            Endpoint::Unix(path) => Ok(Box::new(open_unix(path).await?)),
            Endpoint::Tcp(host, port) => Ok(Box::new(open_tcp(&host.dialled(), *port).await?)),
            Endpoint::Ssl(host, port) => Ok(Box::new(open_ssl(self.tls.as_ref(), &host.dialled(), *port).await?)),
        }
    }
}

/// Whoever comes as soon as there is a socket may find it bound (bind(2)) and not listened on yet (listen(2)).
async fn open_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_new(path) => sleep(SETTLING).await,
            done => return done,
        }
    }
}

/// Whether the socket was made just now. That of a process which was killed stays behind and is older.
fn is_new(path: &Path) -> bool {
    let made = path.metadata().and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < NEW))
}

impl Connect for Dial {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(self.open())
    }

    fn target(&self) -> String {
        self.endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_was_parsed() {
        for text in [
            "unix:/run/openvswitch/db.sock",
            "unix:db.sock",
            "tcp:127.0.0.1:6640",
            "tcp:[::1]:6641",
            "tcp:db.example.org:6640",
            "ssl:[fe80::1]:6640",
            "ssl:10.0.0.1:1",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("tcp:[::1]".parse::<Endpoint>().unwrap().to_string(), "tcp:[::1]:6640");
        assert_eq!("ssl:h".parse::<Endpoint>().unwrap(), Endpoint::Ssl(Host::Name("h".into()), 6640));
    }

    #[tokio::test]
    async fn a_socket_that_is_bound_is_waited_for_and_one_left_behind_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db.sock");
        let dial = Dial::new(Endpoint::Unix(path.clone()), None);
        let bound = tokio::net::UnixSocket::new_stream().unwrap();
        bound.bind(&path).unwrap();
        let listening = async {
            sleep(4 * SETTLING).await;
            bound.listen(1).unwrap()
        };
        let (connected, listener) = tokio::join!(dial.connect(), listening);
        assert!(connected.is_ok());
        drop(listener);
        let error = tokio::time::timeout(20 * NEW, dial.connect()).await.unwrap().err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn everything_else_is_refused_with_a_reason() {
        for (text, problem) in [
            ("/run/db.sock", "expected unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT"),
            ("udp:1.2.3.4:5", "expected unix:, tcp: or ssl:"),
            ("ptcp:6640", "expected unix:, tcp: or ssl:"),
            ("unix:", "the path is empty"),
            ("tcp::6640", "the host is empty"),
            ("tcp:::1:6640", "an IPv6 address belongs in brackets"),
            ("tcp:[::1:6640", "the bracket is not closed"),
            ("tcp:[1.2.3.4]:6640", "not an IPv6 address between the brackets"),
            ("tcp:[::1]6640", "expected :PORT after the bracket"),
            ("tcp:h:0", "the port is not a number from 1 to 65535"),
            ("tcp:h:65536", "the port is not a number from 1 to 65535"),
            ("tcp:h:", "the port is not a number from 1 to 65535"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.to_string(), format!("\"{text}\" is no OVSDB endpoint: {problem}"));
        }
    }
}
