//! The way to ovsdb-server: the library's, and inotify for a server that comes back. The library knows of sockets and of
//! time alone.

use std::path::PathBuf;

use ovsdb::endpoint::{Comeback, Connect, Connecting, Dial, Endpoint};
use ovsdb::tls::Tls;

use crate::way::made_anew;

/// An endpoint. A unix socket that is made anew is connected to at once; others wait for the delay to pass.
pub(crate) struct Server {
    dial: Dial,
    socket: Option<PathBuf>,
}

impl Server {
    /// As [`Dial::new`].
    pub(crate) fn new(endpoint: Endpoint, tls: Option<Tls>) -> Self {
        let socket = match &endpoint {
            Endpoint::Unix(path) => Some(path.clone()),
            Endpoint::Tcp(..) | Endpoint::Ssl(..) => None,
        };
        Server { dial: Dial::new(endpoint, tls), socket }
    }
}

impl Connect for Server {
    fn connect(&self) -> Connecting<'_> {
        self.dial.connect()
    }

    fn target(&self) -> String {
        self.dial.target()
    }

    fn comeback(&self) -> Comeback {
        match &self.socket {
            Some(path) => Box::pin(made_anew(path)),
            None => Box::pin(std::future::pending()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ovsdb::replica::NoReplica;
    use ovsdb::session::{Config, Session};
    use tokio::net::UnixListener;

    use super::*;

    /// Whether the session comes is decided by inotify alone: its own delay is longer than any test.
    #[tokio::test]
    async fn a_socket_that_is_made_anew_is_connected_to_at_once() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("openvswitch");
        let path = directory.join("db.sock");
        let mut config = Config::new(Server::new(Endpoint::Unix(path.clone()), None));
        (config.min_backoff, config.max_backoff) = (Duration::from_secs(7200), Duration::from_secs(7200));
        let handle = Session::spawn(config, NoReplica);
        for lives in 0..3 {
            let mut state = handle.state();
            let failed = |state: &_| matches!(state, ovsdb::session::SessionState::Failed(_));
            tokio::time::timeout(Duration::from_secs(20), state.wait_for(failed)).await.unwrap().unwrap();
            if lives != 1 {
                // The directory has gone with the server, as a service manager's does.
                std::fs::create_dir(&directory).unwrap();
            }
            let server = UnixListener::bind(&path).unwrap();
            let came = tokio::time::timeout(Duration::from_secs(20), server.accept()).await;
            let (client, _) = came.unwrap_or_else(|_| panic!("life {lives}: nobody came")).unwrap();
            std::fs::remove_file(&path).unwrap();
            if lives == 1 {
                std::fs::remove_dir(&directory).unwrap();
            }
            drop((server, client));
        }
    }
}
