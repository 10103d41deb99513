//! Who is served when more clients come than there is room for. Nothing is read or written here.
//!
//! A connection takes a seat. When all are taken, the one that has not asked for anything for the longest time gives
//! its seat to the newcomer: a flood of connections that say nothing keeps nobody out. What a request may hold on to
//! for long, or makes much of, is rationed besides, so that watchers and waiters leave seats to those who only ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::HttpBody;
use axum::http::{Method, Request};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Requests at a time that wait, watch, list or bring a body.
const LONG: usize = 256;
/// Requests at a time whose answer is made as one text of everything.
const LARGE: usize = 8;
/// How long those wait for their turn.
const TURN: Duration = Duration::from_secs(5);

/// What a request asks of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Burden {
    /// An answer at once, of a few kilobytes.
    Light,
    /// It is answered when the client or the host are ready for it.
    Long,
    /// A text of megabytes, where there are thousands of VIFs.
    Large,
}

fn burden<B: HttpBody>(request: &Request<B>) -> Burden {
    let waits = request.uri().query().is_some_and(|query| query.contains("wait") || query.contains("watch"));
    match request.uri().path() {
        "/metrics" | "/v1/plan" | "/v1/candidates" | "/v1/nics" => Burden::Large,
        // Switches are asked for these.
        path if path.ends_with("/flows") || path.ends_with("/trace") => Burden::Large,
        "/v1/vifs" => Burden::Long,
        _ if waits || request.method() == Method::DELETE || !request.body().is_end_stream() => Burden::Long,
        _ => Burden::Light,
    }
}

/// The seats of one listener, and the rations of all that sit there.
pub(super) struct Seats {
    limit: usize,
    guests: BTreeMap<u64, Arc<Guest>>,
    count: u64,
    rations: Rations,
}

#[derive(Clone)]
struct Rations {
    long: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// A connection that is served.
pub(super) struct Guest {
    number: u64,
    /// A request is being answered.
    busy: AtomicBool,
    /// Since when it is not, or when it came.
    idle_since: Mutex<Instant>,
    leave: Notify,
    rations: Rations,
}

impl Seats {
    pub(super) fn new(limit: usize) -> Seats {
        let rations = Rations { long: Arc::new(Semaphore::new(LONG)), large: Arc::new(Semaphore::new(LARGE)) };
        Seats { limit, guests: BTreeMap::new(), count: 0, rations }
    }

    /// A seat, if need be that of a guest who asks for nothing; `None` when all are being served.
    pub(super) fn take(&mut self) -> Option<Arc<Guest>> {
        // Only the task of a connection has its guest beside this: without it the guest has left.
        self.guests.retain(|_, guest| Arc::strong_count(guest) > 1);
        if self.guests.len() >= self.limit {
            let idle = self.guests.values().filter(|guest| !guest.busy.load(Ordering::Relaxed));
            let number = idle.min_by_key(|guest| *guest.idle_since())?.number;
            self.guests.remove(&number)?.leave.notify_one();
        }
        let number = self.count;
        self.count += 1;
        let guest = Arc::new(Guest {
            number,
            busy: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            leave: Notify::new(),
            rations: self.rations.clone(),
        });
        self.guests.insert(number, Arc::clone(&guest));
        Some(guest)
    }
}

impl Guest {
    /// Done when somebody else is given the seat.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    fn idle_since(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins, unless there are too many of its kind. To be kept until its answer is on its way.
    pub(super) async fn begin<B: HttpBody>(self: &Arc<Self>, request: &Request<B>) -> Option<Visit> {
        let ration = match burden(request) {
            Burden::Light => None,
            Burden::Long => Some(Arc::clone(&self.rations.long).try_acquire_owned().ok()?),
            Burden::Large => {
                // Not busy yet: who waits gives up the seat, or a flood of these would keep everybody out.
                let turn = timeout(TURN, Arc::clone(&self.rations.large).acquire_owned());
                Some(turn.await.ok()?.ok()?)
            }
        };
        self.busy.store(true, Ordering::Relaxed);
        Some(Visit { guest: Arc::clone(self), _ration: ration })
    }
}

/// A request that is being answered.
pub(super) struct Visit {
    guest: Arc<Guest>,
    _ration: Option<OwnedSemaphorePermit>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        *self.guest.idle_since() = Instant::now();
        self.guest.busy.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn get(target: &str) -> Request<Body> {
        Request::get(target).body(Body::empty()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_newcomer_gets_the_seat_that_was_idle_longest() {
        let mut seats = Seats::new(3);
        let mut guests = Vec::new();
        for _ in 0..3 {
            guests.push(seats.take().unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let first = guests[0].begin(&get("/healthz")).await.unwrap();
        let fourth = seats.take().unwrap();
        guests[1].asked_to_leave().await;
        drop(first);
        // The first has just been served, so it is the third's turn.
        let fifth = seats.take().unwrap();
        guests[2].asked_to_leave().await;
        let mut visits = Vec::new();
        for guest in [&guests[0], &fourth, &fifth] {
            visits.push(guest.begin(&get("/healthz")).await);
        }
        assert!(seats.take().is_none(), "all are being served");
        drop((visits, guests));
        assert!(seats.take().is_some(), "some are idle again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_rationed_and_what_does_not_is_served() {
        let mut seats = Seats::new(1000);
        let guest = seats.take().unwrap();
        let mut visits = Vec::new();
        while let Some(visit) = guest.begin(&get("/v1/vifs?watch=true")).await {
            visits.push(visit);
        }
        assert_eq!(visits.len(), LONG);
        assert!(guest.begin(&get("/v1/vifs/x?wait=ready")).await.is_none());
        assert!(guest.begin(&get("/healthz")).await.is_some());
        visits.pop();
        assert!(guest.begin(&get("/v1/vifs")).await.is_some());

        let mut large = Vec::new();
        for _ in 0..LARGE {
            large.push(guest.begin(&get("/metrics")).await.unwrap());
        }
        let begun = Instant::now();
        assert!(guest.begin(&get("/metrics")).await.is_none());
        assert_eq!(begun.elapsed(), TURN);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_turn_keeps_nobody_out() {
        let mut seats = Seats::new(2);
        let (first, second) = (seats.take().unwrap(), seats.take().unwrap());
        let mut large = Vec::new();
        for _ in 0..LARGE {
            large.push(first.begin(&get("/metrics")).await.unwrap());
        }
        let request = get("/metrics");
        let mut waiting = std::pin::pin!(second.begin(&request));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        assert!(seats.take().is_some());
        second.asked_to_leave().await;
    }
}
