//! Audits, against a switch at the other end of a pipe, in time that flies.

use bytes::{Bytes, BytesMut};
use flows::endpoint::{Connect, Connecting};
use flows::message::{
    Features, Hello, MonitorCommand, MultipartKind, MultipartRequest, SwitchError, UpdateEvent, UpdatedFlow, Vendor,
};
use flows::session::{Config, Session};
use flows::{Flow, Frames};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::interval;

use super::*;
use crate::model::Bridge;

/// Hands the other end of a connection to a scripted switch.
struct Pipe(mpsc::UnboundedSender<DuplexStream>);

impl Connect for Pipe {
    fn connect(&self) -> Connecting<'_> {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let accepted = self.0.send(theirs).map_err(|_| std::io::ErrorKind::ConnectionRefused.into());
        Box::pin(async move { accepted.map(|()| Box::new(ours) as Box<_>) })
    }

    fn target(&self) -> String {
        "a pipe".to_owned()
    }
}

fn multipart(kind: MultipartKind, body: Bytes) -> Message {
    Message::MultipartReply { kind, more: false, body }
}

fn told(event: UpdateEvent, port: u32) -> Message {
    let text = format!("table=1,in_port={port} actions=drop");
    let Flow { table, priority, matching, instructions, .. } = text.parse().unwrap();
    let (cookie, idle_timeout, hard_timeout) = (7, 0, 0);
    let update =
        UpdatedFlow { event, reason: 0, table, priority, matching, cookie, idle_timeout, hard_timeout, instructions };
    let mut body = BytesMut::new();
    FlowUpdate::Flow(update).encode(&mut body);
    multipart(MultipartKind::FLOW_MONITOR, body.freeze())
}

/// A switch that tells of one flow, of a further one as often as `churn` says, and has none when it is asked.
async fn play(mut stream: DuplexStream, churn: Option<Duration>) {
    let mut frames = Frames::default();
    let (mut watched, mut port) = (false, 1);
    let mut ticks = interval(churn.unwrap_or(Duration::from_secs(1 << 20)));
    loop {
        while let Some((header, body)) = frames.next_message().unwrap() {
            let answer = match Message::decode(header, &body).unwrap() {
                Message::Hello(_) => Some(Message::Hello(Hello { versions: Some(0x7e) })),
                Message::FeaturesRequest => Some(Message::FeaturesReply(Features {
                    datapath_id: 1,
                    buffers: 0,
                    tables: 254,
                    auxiliary_id: 0,
                    capabilities: 0,
                })),
                Message::EchoRequest(data) => Some(Message::EchoReply(data)),
                Message::BarrierRequest => Some(Message::BarrierReply),
                Message::MultipartRequest(MultipartRequest::FlowMonitor(request)) => {
                    watched = request.command == MonitorCommand::Add;
                    watched.then(|| told(UpdateEvent::Initial, 1))
                }
                Message::MultipartRequest(MultipartRequest::Flows(_)) => {
                    Some(multipart(MultipartKind::FLOW, Bytes::new()))
                }
                Message::MultipartRequest(MultipartRequest::Groups) => {
                    Some(multipart(MultipartKind::GROUP_DESC, Bytes::new()))
                }
                // It has no meters.
                Message::MultipartRequest(_) => {
                    let data = Bytes::new();
                    Some(Message::Error(SwitchError { vendor: Vendor::Standard, kind: 1, code: 2, data }))
                }
                _ => None,
            };
            if let Some(answer) = answer {
                send(&mut stream, header.xid, &answer).await;
            }
        }
        tokio::select! {
            read = stream.read_buf(frames.buffer()) => if read.is_ok_and(|read| read > 0) {} else { return },
            _ = ticks.tick() => if watched && churn.is_some() {
                port += 1;
                send(&mut stream, 0, &told(UpdateEvent::Added, port)).await;
            },
        }
    }
}

async fn send(stream: &mut DuplexStream, xid: u32, message: &Message) {
    let mut bytes = BytesMut::new();
    message.encode(xid, &mut bytes).unwrap();
    // A client that has what it wanted hangs up.
    let _ = stream.write_all(&bytes).await;
}

/// How long an audit of such a switch compares, and whether it counts as one that tells afterwards.
async fn audited(churn: Option<Duration>) -> (Duration, bool) {
    let (ends, mut accepted) = mpsc::unbounded_channel();
    let handle = Session::spawn(Config::new(Pipe(ends)));
    tokio::spawn(play(accepted.recv().await.unwrap(), churn));
    handle.state().wait_for(|state| matches!(state, SessionState::Ready(_))).await.unwrap();
    let (_terms, terms) = watch::channel(Terms::of(&Bridge::default(), false));
    let (_commands, commands) = mpsc::channel(1);
    let mut switch = Switch::new("br-int".to_owned(), 0x7654, handle, terms, commands, Arc::new(Wall::new()));
    switch.look().await.unwrap();
    let start = Instant::now();
    switch.audit().await.unwrap();
    (start.elapsed(), switch.is_told)
}

/// Batches for all bridges wait for it.
#[tokio::test(start_paused = true)]
async fn an_audit_beside_somebody_who_is_at_work_ends_soon_and_blames_nobody() {
    let tick = Duration::from_millis(100);
    let (took, is_told) = audited(Some(tick)).await;
    assert!(is_told);
    assert!(took >= AUDIT && took < AUDIT + tick, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_tells_something_else_than_there_is_counts_as_silent() {
    let (took, is_told) = audited(None).await;
    assert!(!is_told);
    assert!(took < AUDIT, "{took:?}");
}
