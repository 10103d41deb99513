//! The operator's word, kept over restarts: what is paused, and which removals wait for a confirmation. Confirmed
//! ones are not kept: whoever confirms sees what happens, and after a crash is asked again. The disk is waited for on a
//! thread of its own, and by the reconciler alone, so that words are kept in the order in which they were given.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::blocking::blocking;
use crate::model::VifId;
use crate::plan::Orders;
use crate::state_dir::StateDir;

/// Its file in the state directory.
const FILE: &str = "pauses.json";

/// The file's form. A key that we do not know is from a later release and stays unread.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Pauses {
    host: bool,
    vifs: BTreeSet<VifId>,
    stopped_removals: BTreeSet<VifId>,
}

/// Reads what the file says.
///
/// # Errors
/// When it is none of ours: what it paused is not known then.
pub fn decode(bytes: &[u8]) -> serde_json::Result<Orders> {
    let Pauses { host, vifs, stopped_removals } = serde_json::from_slice(bytes)?;
    Ok(Orders { paused: host, paused_vifs: vifs, confirmed: BTreeSet::new(), stopped: stopped_removals })
}

/// What the file says of these orders.
///
/// # Errors
/// None that are known: it is plain data.
pub fn encode(orders: &Orders) -> serde_json::Result<Vec<u8>> {
    let Orders { paused, paused_vifs, confirmed: _, stopped } = orders.clone();
    serde_json::to_vec(&Pauses { host: paused, vifs: paused_vifs, stopped_removals: stopped })
}

/// The orders and the file they are kept in.
pub(super) struct OrderBook {
    state: Arc<StateDir>,
    orders: Orders,
}

impl OrderBook {
    /// Reads the pauses in `state_dir`.
    pub(super) async fn open(state_dir: PathBuf) -> io::Result<Self> {
        let read = move || {
            let state = StateDir::open(&state_dir)?;
            let orders = match state.read(FILE)? {
                Some(bytes) => decode(&bytes).map_err(|error| {
                    let path = state.path().join(FILE);
                    io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be read: {error}", path.display()))
                })?,
                None => Orders::default(),
            };
            Ok(OrderBook { state: Arc::new(state), orders })
        };
        blocking(read).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }

    pub(super) fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Pauses one VIF or the host; in force only when it is on disk.
    pub(super) async fn pause(&mut self, vif: Option<VifId>) -> Result<(), String> {
        tracing::info!(vif = vif.map(tracing::field::display), "paused");
        self.change(|orders| match vif {
            Some(vif) => drop(orders.paused_vifs.insert(vif)),
            None => orders.paused = true,
        })
        .await
    }

    /// Ends the pause of one VIF, or of the host and of every VIF.
    pub(super) async fn resume(&mut self, vif: Option<VifId>) -> Result<(), String> {
        tracing::info!(vif = vif.map(tracing::field::display), "resumed");
        self.change(|orders| match vif {
            Some(vif) => drop(orders.paused_vifs.remove(&vif)),
            None => {
                orders.paused = false;
                orders.paused_vifs.clear();
            }
        })
        .await
    }

    async fn change(&mut self, change: impl FnOnce(&mut Orders)) -> Result<(), String> {
        let mut orders = self.orders.clone();
        change(&mut orders);
        self.write(&orders).await.map_err(|error| format!("cannot keep the pause in {}: {error}", self.shown()))?;
        self.orders = orders;
        Ok(())
    }

    async fn write(&self, orders: &Orders) -> io::Result<()> {
        let (state, bytes) = (Arc::clone(&self.state), encode(orders)?);
        let written = blocking(move || state.replace(FILE, &bytes)).await;
        written.unwrap_or_else(|panic| Err(io::Error::other(panic)))
    }

    fn shown(&self) -> String {
        self.state.path().join(FILE).display().to_string()
    }

    /// Lets these removals pass.
    pub(super) fn confirm(&mut self, vifs: &BTreeSet<VifId>) {
        tracing::info!(vifs = vifs.len(), "removals were confirmed");
        self.orders.confirmed.extend(vifs);
    }

    /// Takes in which removals are stopped now, and which VIFs are still on their way out. Confirmations that have
    /// served are dropped, so that they do not let a later absence of the same VIFs pass.
    pub(super) async fn removals(&mut self, stopped: &[VifId], leaving: impl Fn(&VifId) -> bool) {
        self.orders.confirmed.retain(leaving);
        let stopped: BTreeSet<VifId> = stopped.iter().copied().collect();
        if stopped == self.orders.stopped {
            return;
        }
        if !stopped.is_subset(&self.orders.stopped) {
            tracing::warn!(vifs = stopped.len(), "removals are stopped until `vifd confirm-removals`");
        }
        self.orders.stopped = stopped;
        if let Err(error) = self.write(&self.orders).await {
            tracing::error!(%error, "cannot keep in {} which removals are stopped", self.shown());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn pauses_survive_and_a_broken_file_is_an_error_not_an_end_of_the_pause() {
        let dir = tempfile::tempdir().unwrap();
        let vif = VifId(Uuid::from_u128(7));
        let mut book = OrderBook::open(dir.path().to_owned()).await.unwrap();
        book.pause(Some(vif)).await.unwrap();
        book.pause(None).await.unwrap();
        let again = OrderBook::open(dir.path().to_owned()).await.unwrap();
        assert!(again.orders().paused && again.orders().paused_vifs.contains(&vif));
        book.resume(None).await.unwrap();
        assert_eq!(*OrderBook::open(dir.path().to_owned()).await.unwrap().orders(), Orders::default());
        fs::write(dir.path().join("pauses.json"), "{").unwrap();
        assert!(OrderBook::open(dir.path().to_owned()).await.is_err());
    }
}
