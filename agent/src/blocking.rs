//! Work that blocks, on a thread of its own. What is done about work that panics is for whoever waits for it.

use tokio::task::JoinError;

/// Does the work and waits for it, for ever when the runtime ends before the work has begun.
///
/// # Errors
/// The work panicked.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    match tokio::task::spawn_blocking(work).await {
        // Only the end of the runtime cancels it. That ends whoever waits here, too, and is not news.
        Err(error) if error.is_cancelled() => std::future::pending().await,
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error() {
        assert_eq!(blocking(|| 7).await.unwrap(), 7);
        assert!(blocking(|| panic!("a defect")).await.unwrap_err().is_panic());
    }

    #[test]
    fn the_end_of_the_runtime_is_no_error() {
        let (said, heard) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).build();
        let runtime = runtime.unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel::<()>();
        // The only thread is taken, so the next work is still waiting when the runtime ends.
        runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            ends.recv().unwrap_err();
        });
        begins.recv().unwrap();
        runtime.spawn(async move {
            let outcome = blocking(|| ()).await;
            said.send(outcome.is_ok()).unwrap();
        });
        std::thread::sleep(Duration::from_millis(50));
        runtime.shutdown_background();
        drop(end);
        // The task ended without a word: its end of the channel is gone.
        assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }
}
