//! Connections, within bounds: how many there are at a time, how long a client may take to ask and to read.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};
use tracing::{debug, warn};

use super::Api;
use super::error::Error;
use super::listen::{self, BindError, Local};
use super::seats::{Guest, Seats};
use crate::config;

/// Connections at a time. Another one takes the seat of one that asks for nothing.
const LOCAL_CONNECTIONS: usize = 512;
/// The same for the TCP listener: scrapers and probes.
const REMOTE_CONNECTIONS: usize = 32;
/// For the head of a request to arrive, and between requests.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long a client may leave an answer unread.
const STALL_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's head, and of what is read ahead.
const HEAD_SIZE: usize = 64 << 10;
/// Where accepting fails (no descriptors left), before the next attempt.
const PAUSE: Duration = Duration::from_millis(200);
/// How often metrics are taken in, scraped or not.
const UPKEEP: Duration = Duration::from_secs(5);

/// The sockets of the API, bound and not served yet.
#[derive(Debug)]
pub struct Server {
    local: Local,
    remote: Option<TcpListener>,
}

impl Server {
    /// Binds the unix socket, and the TCP one where it is configured. A stale unix socket is taken over.
    ///
    /// # Errors
    /// Somebody else listens, or the system refuses.
    pub async fn bind(api: &config::Api, metrics: &config::Metrics) -> Result<Server, BindError> {
        let remote = match metrics.listen.0 {
            Some(address) => Some(listen::tcp(address).await?),
            None => None,
        };
        Ok(Server { local: Local::bind(api)?, remote })
    }

    /// Where the TCP listener listens, if there is one.
    #[must_use]
    pub fn remote_address(&self) -> Option<std::net::SocketAddr> {
        self.remote.as_ref()?.local_addr().ok()
    }

    /// Serves until `shutdown` is done; then connections are dropped and the socket is removed.
    pub async fn run(self, api: Api, shutdown: impl Future<Output = ()>) {
        let Server { local, remote } = self;
        let exporter = api.exporter.clone();
        let unix = accept(LOCAL_CONNECTIONS, api.clone().local(), |cx| {
            local.listener.poll_accept(cx).map_ok(|(stream, _)| stream)
        });
        let tcp = async {
            match &remote {
                Some(listener) => {
                    accept(REMOTE_CONNECTIONS, api.remote(), |cx| {
                        listener.poll_accept(cx).map_ok(|(stream, _)| stream)
                    })
                    .await;
                }
                None => std::future::pending().await,
            }
        };
        let upkeep = async {
            loop {
                sleep(UPKEEP).await;
                exporter.upkeep();
            }
        };
        tokio::select! {
            () = unix => {}
            () = tcp => {}
            () = upkeep => {}
            () = shutdown => {}
        }
    }
}

/// Accepts for ever. Connections end with this.
async fn accept<S>(limit: usize, router: Router, mut next: impl FnMut(&mut Context<'_>) -> Poll<io::Result<S>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut seats = Seats::new(limit);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(_) = connections.join_next() => continue,
            accepted = poll_fn(&mut next) => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection to the API");
                sleep(PAUSE).await;
                continue;
            }
        };
        match seats.take() {
            Some(guest) => {
                let router = router.clone();
                connections.spawn(async move {
                    tokio::select! {
                        () = serve(stream, router, &guest) => {}
                        () = guest.asked_to_leave() => {}
                    }
                });
            }
            None => {
                connections.spawn(turn_away(stream));
            }
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, router: Router, guest: &Arc<Guest>) {
    let io = TokioIo::new(Attentive { stream, stall: None });
    let service = service_fn(|request| answer(request, router.clone(), Arc::clone(guest)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(io, service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection to the API ended");
    }
}

/// Answers a request, unless there are too many of its kind. It counts as being served until its answer is taken.
async fn answer(request: Request<Incoming>, router: Router, guest: Arc<Guest>) -> Result<Response<Body>, Infallible> {
    let Some(visit) = guest.begin(&request).await else { return Ok(Error::busy().into_response()) };
    let answer = TowerToHyperService::new(router).call(request).await?;
    Ok(answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_the_end = &visit;
            frame
        }))
    }))
}

/// Says why to a client that finds no seat.
async fn turn_away<S: AsyncWrite + Unpin>(mut stream: S) {
    const BODY: &str = r#"{"error":{"code":"unavailable","field":"","message":"too many connections"}}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    // Fits in any socket's buffer; a client that is gone already needs no answer.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer.as_bytes())).await;
}

/// A stream whose other end has to read: a write that makes no progress for [`STALL_TIME`] fails.
struct Attentive<S> {
    stream: S,
    /// Since a write has been waiting.
    stall: Option<Pin<Box<Sleep>>>,
}

impl<S> Attentive<S> {
    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stall = None;
            return polled;
        }
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + STALL_TIME)));
        match stall.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Attentive<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Attentive<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.watch(cx, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(cx);
        this.watch(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up_and_a_slow_one_is_not() {
        let (near, mut far) = duplex(10);
        let mut attentive = Attentive { stream: near, stall: None };
        let write = tokio::spawn(async move { attentive.write_all(&[0; 30]).await });
        let mut taken = [0; 10];
        for _ in 0..2 {
            sleep(STALL_TIME - Duration::from_secs(1)).await;
            far.read_exact(&mut taken).await.unwrap();
        }
        write.await.unwrap().unwrap();

        let (near, _far) = duplex(10);
        let mut attentive = Attentive { stream: near, stall: None };
        let error = attentive.write_all(&[0; 30]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_ask_is_given_up() {
        let (near, mut far) = duplex(100);
        let guest = Seats::new(1).take().unwrap();
        let served = tokio::spawn(async move { serve(near, Router::new(), &guest).await });
        far.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        tokio::time::timeout(2 * HEAD_TIME, served).await.unwrap().unwrap();
    }
}
