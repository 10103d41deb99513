//! Where a switch is and how to get a byte stream to it: `unix:`, `tcp:` and `ssl:` as ovs-vswitchd.conf.db(5) writes
//! them. Another stream is handed in by an implementation of [`Connect`].

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;

use tls::{Tls, open_ssl, open_tcp};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// The port that IANA gave OpenFlow, for endpoints that name none.
pub const DEFAULT_PORT: u16 = 6653;

/// A connected byte stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A future of a connected stream.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// A future that ends when there may be a switch again.
pub type Comeback = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Something that gives a byte stream to a switch: an endpoint, or a test's in-memory pipe.
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

/// The address of a switch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `unix:PATH`, e.g. a bridge's `BRIDGE.mgmt` in Open vSwitch's run directory.
    Unix(PathBuf),
    /// `tcp:HOST[:PORT]`; a name is resolved at every attempt to connect.
    Tcp {
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `ssl:HOST[:PORT]`: the same with TLS, which takes a [`Dial`].
    Ssl {
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp:{}:{port}", bracketed(host)),
            Self::Ssl { host, port } => write!(f, "ssl:{}:{port}", bracketed(host)),
        }
    }
}

fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') { format!("[{host}]").into() } else { host.into() }
}

/// Text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no OpenFlow endpoint: expected unix:PATH, tcp:HOST[:PORT] or ssl:HOST[:PORT], with IPv6 addresses in brackets"
)]
pub struct EndpointError(pub String);

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let parsed = match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Some(Self::Unix(path.into())),
            Some(("tcp", rest)) => host_and_port(rest).map(|(host, port)| Self::Tcp { host, port }),
            Some(("ssl", rest)) => host_and_port(rest).map(|(host, port)| Self::Ssl { host, port }),
            _ => None,
        };
        parsed.ok_or_else(|| EndpointError(text.to_owned()))
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok().filter(|port| *port != 0))?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

impl Endpoint {
    async fn open(&self, tls: Option<&Tls>) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp { host, port } => Ok(Box::new(open_tcp(host, *port).await?)),
            Self::Ssl { host, port } => Ok(Box::new(open_ssl(tls, host, *port).await?)),
        }
    }
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
}

impl Connect for Dial {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(self.endpoint.open(self.tls.as_ref()))
    }

    fn target(&self) -> String {
        self.endpoint.to_string()
    }
}

impl Connect for Endpoint {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(self.open(None))
    }

    fn target(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_was_parsed() {
        for text in [
            "unix:/run/openvswitch/br0.mgmt",
            "tcp:127.0.0.1:6653",
            "tcp:[::1]:6654",
            "ssl:[::1]:6654",
            "ssl:sw.example.org:1",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!("tcp:[::1]".parse::<Endpoint>().unwrap().to_string(), "tcp:[::1]:6653");
        assert_eq!("tcp:sw".parse::<Endpoint>().unwrap().to_string(), "tcp:sw:6653");
        assert_eq!("ssl:sw".parse::<Endpoint>().unwrap().to_string(), "ssl:sw:6653");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "br0.mgmt",
            "unix:",
            "ssl:h:0",
            "pssl:6653",
            "ptcp:6653",
            "tcp:",
            "tcp::1",
            "tcp:::1:1",
            "tcp:[::1",
            "tcp:[h]:1",
        ]
        .into_iter()
        .chain(["tcp:h:0", "tcp:h:", "tcp:h:65536", "tcp:[::1]1"])
        {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError(text.to_owned())));
        }
    }
}
