//! The task that follows the kernel: it owns the table of links and alone publishes the view.
//!
//! ```text
//!            dump complete                        ENOBUFS, socket lost, no answer, guard that did not hold
//!  Syncing ───────────────► Ready ◄──────────┐  ┌─────────────────────────────────────────────┐
//!                             │ events       │  │                                             ▼
//!                             └──────────────┘  Ready ◄──────── dump complete ──────── Ready (old view stands)
//! ```
//!
//! What makes it right:
//!
//! * The kernel queues the notifications of a write on our socket before it acknowledges the write, so after an
//!   answer on this socket everything that came before has been queued here too, in order.
//! * netlink-proto hands over answers and notifications in two channels; the order between them is lost. So:
//!   answers are taken in first, then every notification that came since the question was put. A notification
//!   that is older than the answer shows a state that some later notification overtakes, unless notifications
//!   are lost, which leads to a dump.
//! * After `ENOBUFS` the kernel drops without a further word until the queue has been emptied, and what is still
//!   queued is older than what was dropped: taken in after a dump, it would undo it, for good. `ENOBUFS` is told
//!   before the queue is read, and the queue is read in portions. So the socket is given up, with its queue, and
//!   the dump is asked for on a new one, on which nothing is older than the question.
//! * Some changes are told by no notification (`ifalias` on a link that is down, `TUNSETPERSIST`). Our own are
//!   asked for after each batch; those of others are seen with the next notification about the link.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::proto::ConnectionHandle;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::model::{Link, LinkState, SocketState, View};

use super::codec::{LinkCodec, Talk};
use super::devices::{Changed, Devices};
use super::request::{Which, get_message, no_such_device};
use super::sockets::Sockets;
use super::statistics::{Counters, ResyncReason};
use super::table::LinkTable;

/// Between two publications, so that a burst of thousands of events is not thousands of views.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);
/// For the answers to one set of questions. The kernel answers in microseconds or not at all.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts at a dump: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Dumps that were interrupted by changes before one of them is taken all the same. Since Linux 6.2 links are
/// dumped by index and none is missed; before, one may be until the next event about it.
const INTERRUPTED_DUMPS: u32 = 10;
/// The multicast groups of links and of addresses, as the bits that bind(2) takes (`RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and
/// `RTMGRP_IPV6_IFADDR`, `linux/rtnetlink.h`). A link that has IPv6 off, as those of guests have, sends nothing to the last.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Of the loopback link, in every network namespace: the question whose answer is a barrier.
const LOOPBACK: Which = Which::Index(1);

type Message = (NetlinkMessage<Talk>, SocketAddr);

/// A request to make the view show what was done.
pub(super) struct Settle {
    /// Links to ask for.
    pub(super) touched: Vec<Which>,
    /// Whether to read the socket directory.
    pub(super) sockets: bool,
    /// Whether the kernel was not as the view has it: dump.
    pub(super) resync: bool,
    /// Answered when the view is published.
    pub(super) done: oneshot::Sender<()>,
}

/// An rtnetlink socket in the multicast groups of links and addresses, for notifications and questions.
pub(super) struct Connection {
    events: UnboundedReceiver<Message>,
    handle: ConnectionHandle<Talk>,
    task: JoinHandle<()>,
}

impl Connection {
    /// Opens it in the network namespace of the calling thread.
    pub(super) fn open(receive_buffer: usize) -> io::Result<Self> {
        let (mut connection, handle, events) =
            rtnetlink::proto::new_connection_with_codec::<Talk, TokioSocket, LinkCodec>(NETLINK_ROUTE)?;
        connection.socket_mut().socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        // The end of a dump would look like the end of the connection.
        connection.set_forward_done(true);
        let socket = connection.socket_mut().socket_ref();
        // Beyond net.core.rmem_max takes CAP_NET_ADMIN; without it, as much as may be had.
        if setsockopt(socket, sockopt::RcvBufForce, &receive_buffer).is_err() {
            setsockopt(socket, sockopt::RcvBuf, &receive_buffer)?;
        }
        Ok(Connection { events, handle, task: tokio::spawn(connection) })
    }

    /// The next notification that has arrived already.
    fn queued(&mut self) -> Option<Message> {
        self.events.try_recv().ok()
    }

    /// Every link with its addresses, and whether the kernel says that something changed while it listed them
    /// (`NLM_F_DUMP_INTR`).
    async fn dump(&mut self) -> Result<(LinkTable, bool), ResyncReason> {
        let mut links = LinkTable::default();
        let mut question = LinkMessage::default();
        question.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut interrupted = self.list(Talk::get(question), &mut links).await?;
        interrupted |= self.list(Talk::addresses(), &mut links).await?;
        links.pack();
        Ok((links, interrupted))
    }

    /// One list, taken into `links`; whether it was interrupted.
    async fn list(&mut self, mut question: NetlinkMessage<Talk>, links: &mut LinkTable) -> Result<bool, ResyncReason> {
        question.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers =
            self.handle.request(question, SocketAddr::new(0, 0)).map_err(|_| ResyncReason::ConnectionLost)?;
        let mut interrupted = false;
        let mut complete = false;
        while let Some(answer) = within(ANSWER_TIMEOUT, answers.next()).await? {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(Talk::Is(link)) => {
                    links.seen(link);
                }
                NetlinkPayload::InnerMessage(Talk::Address { index, address, there }) => {
                    links.address(index, address, there);
                }
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    tracing::warn!(error = %error.to_io(), "the kernel refused to list its links");
                    return Err(ResyncReason::NoAnswer);
                }
                NetlinkPayload::Done(_) => complete = true,
                _ => {}
            }
        }
        if complete { Ok(interrupted) } else { Err(ResyncReason::ConnectionLost) }
    }

    /// What the links `wanted` are now, as far as they are, and the notifications that came in meanwhile, which
    /// are to be taken in after it.
    async fn get(&mut self, wanted: &[Which]) -> Result<(Vec<Arc<Link>>, Vec<Message>), ResyncReason> {
        let mut questions = Vec::with_capacity(wanted.len());
        for which in wanted {
            let mut question = Talk::get(get_message(which));
            question.header.flags = NLM_F_REQUEST;
            questions
                .push(self.handle.request(question, SocketAddr::new(0, 0)).map_err(|_| ResyncReason::ConnectionLost)?);
        }
        let mut answers = pin!(async {
            let mut links = Vec::with_capacity(questions.len());
            for mut answer in questions {
                match answer.next().await.ok_or(ResyncReason::ConnectionLost)?.payload {
                    NetlinkPayload::InnerMessage(Talk::Is(link)) => links.push(link),
                    // Its RTM_DELLINK has come before this answer.
                    NetlinkPayload::Error(error) if no_such_device(&error.to_io()) => {}
                    _ => return Err(ResyncReason::NoAnswer),
                }
            }
            Ok(links)
        });
        let deadline = tokio::time::sleep(ANSWER_TIMEOUT);
        let mut deadline = pin!(deadline);
        let mut events = Vec::new();
        loop {
            tokio::select! {
                links = &mut answers => return Ok((links?, events)),
                // An answer may be among what was dropped: it is not waited for.
                event = self.events.next() => match event {
                    Some((message, _)) if is_overrun(&message) => return Err(ResyncReason::Overrun),
                    Some(event) => events.push(event),
                    None => return Err(ResyncReason::ConnectionLost),
                },
                () = &mut deadline => return Err(ResyncReason::NoAnswer),
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn within<T>(limit: Duration, answer: impl Future<Output = T>) -> Result<T, ResyncReason> {
    tokio::time::timeout(limit, answer).await.map_err(|_| ResyncReason::NoAnswer)
}

fn is_overrun(message: &NetlinkMessage<Talk>) -> bool {
    matches!(message.payload, NetlinkPayload::Overrun(_))
}

/// The task's state.
pub(super) struct Follower {
    connection: Connection,
    receive_buffer: usize,
    links: LinkTable,
    sockets: Option<Sockets>,
    socket_state: SocketState,
    devices: Option<Devices>,
    view: watch::Sender<View<LinkState>>,
    counters: Arc<Counters>,
    /// When the view is to be published, if it is behind.
    publish_at: Option<Instant>,
    published: Instant,
}

impl Follower {
    pub(super) fn new(
        connection: Connection,
        receive_buffer: usize,
        sockets: Option<Sockets>,
        devices: Option<Devices>,
        view: watch::Sender<View<LinkState>>,
        counters: Arc<Counters>,
    ) -> Self {
        Follower {
            connection,
            receive_buffer,
            links: LinkTable::default(),
            sockets,
            socket_state: SocketState::default(),
            devices,
            view,
            counters,
            publish_at: None,
            published: Instant::now(),
        }
    }

    /// Follows the kernel until nobody can ask any more.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Settle>) {
        self.rescan().await;
        self.resync(ResyncReason::Start).await;
        loop {
            let taken = tokio::select! {
                event = self.connection.events.next() => match event {
                    Some(event) => self.take(&event).and_then(|()| self.take_queued()),
                    None => Err(ResyncReason::ConnectionLost),
                },
                () = tokio::time::sleep_until(self.publish_at.unwrap_or(self.published)), if self.publish_at.is_some() => {
                    self.look_at_devices().await;
                    self.publish();
                    Ok(())
                }
                state = changed(&mut self.sockets) => {
                    self.socket_state_is(state);
                    Ok(())
                }
                changed = device_changes(&mut self.devices) => {
                    match changed {
                        Changed::Nodes(indices) => indices.into_iter().for_each(|index| self.links.suspect(index)),
                        Changed::All => self.links.suspect_all(),
                    }
                    self.look_at_devices().await;
                    Ok(())
                }
                request = requests.recv() => match request {
                    Some(request) => {
                        self.settle(request).await;
                        Ok(())
                    }
                    None => return,
                },
            };
            if let Err(reason) = taken {
                self.resync(reason).await;
            }
        }
    }

    /// Makes the view show everything that was done before, and whatever else is known by then.
    async fn settle(&mut self, request: Settle) {
        let refreshed = if request.resync { Err(ResyncReason::Conflict) } else { self.refresh(&request.touched).await };
        if let Err(reason) = refreshed {
            self.resync(reason).await;
        }
        if request.sockets {
            self.rescan().await;
        }
        self.look_at_devices().await;
        if self.publish_at.is_some() {
            self.publish();
        }
        // The asker may have given up.
        let _ = request.done.send(());
    }

    async fn refresh(&mut self, touched: &[Which]) -> Result<(), ResyncReason> {
        // First what the writes themselves sent (the answer about the loopback link comes behind it), then the
        // links as they are now: an older notification must not come after the newer answer.
        for wanted in [&[LOOPBACK], touched] {
            let (links, events) = self.connection.get(wanted).await?;
            for link in links {
                let index = link.index;
                let news = self.links.seen(link);
                // What was done may have been to its device.
                self.links.suspect(index);
                self.note(news);
            }
            for event in &events {
                self.take(event)?;
            }
            self.take_queued()?;
        }
        Ok(())
    }

    /// Lists the links anew until a list is complete, and publishes it. The old view stands meanwhile.
    async fn resync(&mut self, mut reason: ResyncReason) {
        let mut interruptions = 0;
        let mut pause = RETRY.0;
        loop {
            self.counters.resync(reason);
            if reason != ResyncReason::Start {
                tracing::info!(%reason, "listing the kernel's links again");
            }
            match self.try_resync(reason, &mut interruptions).await {
                Ok(()) => break,
                Err(again) => reason = again,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
        self.look_at_devices().await;
        self.publish();
    }

    async fn try_resync(&mut self, reason: ResyncReason, interruptions: &mut u32) -> Result<(), ResyncReason> {
        if matches!(reason, ResyncReason::Overrun | ResyncReason::ConnectionLost | ResyncReason::NoAnswer) {
            self.connection = Connection::open(self.receive_buffer).map_err(|error| {
                tracing::warn!(%error, "cannot open a netlink socket");
                ResyncReason::ConnectionLost
            })?;
        }
        // What is here already is older than the list, and need not be looked at.
        while self.connection.queued().is_some() {}
        let (links, interrupted) = self.connection.dump().await?;
        if interrupted && *interruptions < INTERRUPTED_DUMPS {
            *interruptions += 1;
            return Err(ResyncReason::Interrupted);
        }
        self.links = links;
        self.take_queued()
    }

    /// Takes in the notifications that have arrived already.
    fn take_queued(&mut self) -> Result<(), ResyncReason> {
        while let Some(event) = self.connection.queued() {
            self.take(&event)?;
        }
        Ok(())
    }

    /// Takes in one notification.
    fn take(&mut self, (message, _): &Message) -> Result<(), ResyncReason> {
        let news = match &message.payload {
            NetlinkPayload::Overrun(_) => return Err(ResyncReason::Overrun),
            NetlinkPayload::InnerMessage(Talk::Is(link)) => self.links.seen(Arc::clone(link)),
            NetlinkPayload::InnerMessage(Talk::Gone(index)) => self.links.gone(*index),
            NetlinkPayload::InnerMessage(Talk::Address { index, address, there }) => {
                self.links.address(*index, *address, *there)
            }
            _ => return Ok(()),
        };
        self.counters.event();
        self.note(news);
        Ok(())
    }

    async fn rescan(&mut self) {
        if let Some(sockets) = &mut self.sockets
            && let Some(state) = sockets.rescan().await
        {
            self.socket_state_is(state);
        }
    }

    /// Looks at the nodes of macvtaps that may be other than the view has them. When the kernel tells of a new macvtap, it
    /// has made its node in devtmpfs.
    async fn look_at_devices(&mut self) {
        let Some(devices) = &mut self.devices else { return };
        devices.watch(self.links.has_macvtaps());
        let suspects = self.links.take_suspects();
        if suspects.is_empty() {
            return;
        }
        let directory = devices.directory.clone();
        let look = move |(index, name): (u32, String)| (index, directory.look(index, &name));
        match blocking(move || suspects.into_iter().map(look).collect::<Vec<_>>()).await {
            Ok(seen) => {
                for (index, device) in seen {
                    let news = self.links.device(index, device);
                    self.note(news);
                }
            }
            Err(error) => tracing::error!(%error, "looking at the devices of macvtaps broke off"),
        }
    }

    fn socket_state_is(&mut self, state: SocketState) {
        let news = self.socket_state != state;
        self.socket_state = state;
        self.note(news);
    }

    /// If there is news, sets when it is to be published: at once, unless it was done just now.
    fn note(&mut self, news: bool) {
        if news && self.publish_at.is_none() {
            self.publish_at = Some(self.published + PUBLISH_INTERVAL);
        }
    }

    fn publish(&mut self) {
        let state = LinkState { links: self.links.by_name().clone(), sockets: self.socket_state.clone() };
        self.view.send_replace(View::Ready(Arc::new(state)));
        self.publish_at = None;
        self.published = Instant::now();
    }
}

async fn changed(sockets: &mut Option<Sockets>) -> SocketState {
    match sockets {
        Some(sockets) => sockets.changed().await,
        None => std::future::pending().await,
    }
}

async fn device_changes(devices: &mut Option<Devices>) -> Changed {
    match devices {
        Some(devices) => devices.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_socket_is_opened_again_and_the_links_listed_anew() {
        let connection = Connection::open(1 << 16).unwrap();
        let lose = connection.task.abort_handle();
        let (sender, mut view) = watch::channel(View::Syncing);
        let counters = Arc::new(Counters::default());
        let (settle, requests) = mpsc::channel(1);
        tokio::spawn(Follower::new(connection, 1 << 16, None, None, sender, Arc::clone(&counters)).run(requests));
        let listed = |view: &View<LinkState>| view.ready().is_some_and(|state| state.links.contains_key("lo"));
        view.wait_for(listed).await.unwrap();
        view.mark_unchanged();

        lose.abort();
        let again = tokio::time::timeout(
            ANSWER_TIMEOUT,
            view.wait_for(|_| counters.read().resyncs_for(ResyncReason::ConnectionLost) == 1),
        );
        assert!(listed(&again.await.unwrap().unwrap()));

        // The new socket answers.
        let (done, shown) = oneshot::channel();
        let touched = vec![Which::Name("lo".into())];
        settle.send(Settle { touched, sockets: false, resync: false, done }).await.unwrap_or_else(|_| panic!("ended"));
        tokio::time::timeout(ANSWER_TIMEOUT, shown).await.unwrap().unwrap();
        assert_eq!(counters.read().resyncs_for(ResyncReason::NoAnswer), 0);
    }
}
