//! What is being done to a NIC or a function and may hang in the kernel: each such operation has a thread of its own and a
//! deadline. While it hangs there is no second on the same, and nobody reads of it, who would wait for the same lock.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use devlink::Device;
use tokio::sync::Notify;

/// Why an operation was not seen to its end. Whether it was done, what is there tells when it has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Hung {
    #[error(
        "{0} is not done after {1:?}: a guest still has a function, or the driver is stuck; it is left to end by itself"
    )]
    Late(String, Duration),
    #[error(
        "{0} waits for what was begun before and is not done yet: a guest still has a function, or the driver is stuck"
    )]
    Busy(String),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// What operations are under way on, one for each function or NIC.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay {
    on: Arc<Mutex<BTreeSet<Device>>>,
    late: Arc<Notify>,
}

impl UnderWay {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<Device>> {
        self.on.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one is under way on this.
    pub(super) fn is_about(&self, device: &Device) -> bool {
        self.lock().contains(device)
    }

    /// Whether one is under way on any that is such.
    pub(super) fn is_about_any(&self, such: impl Fn(&Device) -> bool) -> bool {
        self.lock().iter().any(such)
    }

    /// Waits until one ends that nobody waits for any more.
    pub(super) async fn ended_late(&self) {
        self.late.notified().await;
    }

    /// Does what may block on a thread of its own, and waits for it so long.
    pub(super) fn within<E: From<Hung> + Send + 'static>(
        &self,
        limit: Duration,
        on: &Device,
        what: String,
        work: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<(), E> {
        if !self.lock().insert(on.clone()) {
            return Err(Hung::Busy(what).into());
        }
        let operation = Operation { under_way: self.clone(), on: on.clone() };
        let late = Arc::clone(&self.late);
        let (done, end) = mpsc::channel();
        let begun = thread::Builder::new().name("nic".to_owned()).spawn(move || {
            let outcome = work();
            drop(operation);
            if done.send(outcome).is_err() {
                late.notify_one();
            }
        });
        begun.map_err(Hung::Thread)?;
        end.recv_timeout(limit).unwrap_or_else(|_| Err(Hung::Late(what, limit).into()))
    }
}

/// One of them, until it is dropped.
struct Operation {
    under_way: UnderWay,
    on: Device,
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.on);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_hangs_is_not_waited_for_and_not_begun_twice() {
        let under_way = UnderWay::default();
        let nic: Device = "pci/0000:03:00.0".parse().unwrap();
        let (let_go, held) = mpsc::channel::<()>();
        let soon = Duration::from_millis(20);
        let hangs = move || {
            // Ends when the other end is gone.
            let _ = held.recv();
            Ok(())
        };
        let late = under_way.within::<Hung>(soon, &nic, "unbinding".into(), hangs).unwrap_err();
        assert!(late.to_string().contains("a guest still has"), "{late}");
        let again = under_way.within::<Hung>(soon, &nic, "unbinding".into(), || panic!("begun twice")).unwrap_err();
        assert!(matches!(&again, Hung::Busy(_)) && under_way.is_about(&nic), "{again}");
        let other = "pci/0000:03:00.1".parse().unwrap();
        under_way.within::<Hung>(Duration::from_secs(20), &other, "unbinding".into(), || Ok(())).unwrap();

        drop(let_go);
        tokio::time::timeout(Duration::from_secs(20), under_way.ended_late()).await.unwrap();
        assert!(!under_way.is_about(&nic));
        under_way.within::<Hung>(Duration::from_secs(20), &nic, "unbinding".into(), || Ok(())).unwrap();
    }
}
