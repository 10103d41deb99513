//! The way to a bridge's management socket: the library's, and inotify for a switch that comes back.

use std::path::PathBuf;

use flows::endpoint::{Comeback, Connect, Connecting, Endpoint};

use crate::way::made_anew;

/// A bridge's management socket (`BRIDGE.mgmt`). When it is made anew it is connected to at once.
pub(super) struct Management(pub(super) PathBuf);

impl Connect for Management {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async { Endpoint::Unix(self.0.clone()).connect().await })
    }

    fn comeback(&self) -> Comeback {
        Box::pin(made_anew(&self.0))
    }

    fn target(&self) -> String {
        Endpoint::Unix(self.0.clone()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flows::session::{Config, Session, SessionState};
    use tokio::net::UnixListener;

    use super::*;

    /// Whether the session comes is decided by inotify alone: its own delay is longer than any test.
    #[tokio::test]
    async fn a_socket_that_is_made_anew_is_connected_to_at_once() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("br-int.mgmt");
        let mut config = Config::new(Management(path.clone()));
        (config.min_backoff, config.max_backoff) = (Duration::from_secs(7200), Duration::from_secs(7200));
        let handle = Session::spawn(config);
        for life in 0..3 {
            let mut state = handle.state();
            let failed = |state: &_| matches!(state, SessionState::Failed(_));
            tokio::time::timeout(Duration::from_secs(20), state.wait_for(failed)).await.unwrap().unwrap();
            let switch = UnixListener::bind(&path).unwrap();
            let came = tokio::time::timeout(Duration::from_secs(20), switch.accept()).await;
            let (client, _) = came.unwrap_or_else(|_| panic!("life {life}: nobody came")).unwrap();
            std::fs::remove_file(&path).unwrap();
            drop((switch, client));
        }
    }
}
