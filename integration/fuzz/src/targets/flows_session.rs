//! A whole session against a switch that sends these bytes: whatever they are, calls get an answer or an error, the
//! connection ends with an error that can be shown, and with the next switch, a good one, the session is ready.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use flows::Frames;
use flows::endpoint::{Connect, Connecting};
use flows::message::{AsyncMask, Features, Hello, Kind, Message, SwitchConfig};
use flows::session::{Config, Handle, Session, SessionState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::{choice, presentable};

/// Time does not pass here but when everybody waits.
const LONG: Duration = Duration::from_secs(3600);

const GOOD: Features = Features { datapath_id: 0x600d, buffers: 0, tables: 254, auxiliary_id: 0, capabilities: 0x4f };

/// Connections by number: the hostile one first, then good ones.
struct Switches {
    script: Arc<[u8]>,
    piece: usize,
    count: Arc<AtomicUsize>,
}

impl Connect for Switches {
    fn connect(&self) -> Connecting<'_> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            tokio::spawn(hostile(theirs, Arc::clone(&self.script), self.piece));
        } else {
            tokio::spawn(good(theirs));
        }
        Box::pin(async move { Ok(Box::new(ours) as Box<_>) })
    }
    fn target(&self) -> String {
        "a pipe".to_owned()
    }
}

/// Begins like a switch or not, sends the script after whatever it is told next, and hangs up.
async fn hostile(mut stream: DuplexStream, script: Arc<[u8]>, piece: usize) -> io::Result<()> {
    let mut frames = Frames::default();
    if piece.is_multiple_of(2) {
        serve(&mut stream, &mut frames, |said| said == Kind::FEATURES_REPLY).await?;
    }
    stream.read_buf(frames.buffer()).await?;
    for bytes in script.chunks(piece) {
        stream.write_all(bytes).await?;
        tokio::task::yield_now().await;
    }
    stream.shutdown().await?;
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

async fn good(mut stream: DuplexStream) -> io::Result<()> {
    serve(&mut stream, &mut Frames::default(), |_| false).await
}

/// Answers as a switch does, until it has said the last word.
async fn serve(stream: &mut DuplexStream, frames: &mut Frames, last: impl Fn(Kind) -> bool) -> io::Result<()> {
    loop {
        while let Some((header, body)) = frames.next_message().expect("we speak OpenFlow") {
            let answer = match Kind(header.kind) {
                Kind::HELLO => Message::Hello(Hello { versions: Some(1 << 5) }),
                Kind::GET_CONFIG_REQUEST => Message::GetConfigReply(SwitchConfig { flags: 0, miss_send_len: 128 }),
                Kind::FEATURES_REQUEST => Message::FeaturesReply(GOOD),
                Kind::ECHO_REQUEST => Message::EchoReply(body),
                Kind::BARRIER_REQUEST => Message::BarrierReply,
                _ => continue,
            };
            let mut bytes = BytesMut::new();
            answer.encode(header.xid, &mut bytes).expect("a short message");
            stream.write_all(&bytes).await?;
            if last(answer.kind()) {
                return Ok(());
            }
        }
        if stream.read_buf(frames.buffer()).await? == 0 {
            return Ok(());
        }
    }
}

/// What the agent asks of a switch, while it is what it is.
async fn ask(handle: Handle) -> bool {
    let watch = async {
        let Ok(mut watch) = handle.watch_flows().await else { return false };
        let mut told = false;
        while watch.next().await.is_ok() {
            told = true;
        }
        told
    };
    let dump = async {
        let flows = handle.dump_flows().await;
        let change = handle.bundle(vec![Message::EchoRequest("in a bundle".into())]).await;
        (flows.is_ok(), change)
    };
    let (told, (dumped, _)) = tokio::join!(watch, dump);
    told || dumped
}

pub(crate) fn check(data: &[u8]) -> bool {
    let (choice, script) = choice(data);
    let switches =
        Switches { script: script.into(), piece: 1 + usize::from(choice), count: Arc::new(AtomicUsize::new(0)) };
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let mut config = Config::new(switches);
        config.max_reply = 4096;
        config.max_watched = 4096;
        config.events = vec![AsyncMask::PORTS, AsyncMask::REQUESTS];
        let handle = Session::spawn(config);
        let answered = tokio::spawn(ask(handle.clone()));
        let mut state = handle.state();
        let failed = timeout(LONG, state.wait_for(|state| matches!(state, SessionState::Failed(_))));
        if let SessionState::Failed(error) = &*failed.await.expect("a failure in the end").expect("the session runs") {
            presentable(error);
        }
        let ready = |state: &SessionState| matches!(state, SessionState::Ready(features) if *features == GOOD);
        let ready = timeout(LONG, state.wait_for(ready)).await.expect("ready in the end");
        drop(ready.expect("the session runs"));
        timeout(LONG, answered).await.expect("every call ends").expect("no call panics")
    })
}
