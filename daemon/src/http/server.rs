//! Accepting and serving connections.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    os::fd::{AsFd as _, OwnedFd},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    time::sleep,
};
use tokio_io_timeout::TimeoutStream;
use vault_api::Code;

use super::{
    BoundSocket,
    connections::{Connections, Place},
    ending::{Ending, Stream},
    problem,
    router::Endpoints,
    short_reads::ShortReads,
    stream::SocketStream,
};
use crate::{
    auth::Peer,
    config::Limits,
    sandbox::{peer_process, unit_of},
};

/// How long a connection without a request is kept at a restart, for its caller to learn with one more answer that it is to
/// make a new one. Whoever uses its connection less often looks whether it is still open, or is told by the kernel.
const LINGER: Duration = Duration::from_millis(500);
/// How long to wait before accepting again after the system had no descriptor for us.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection for which there is no place may stay, for its request to come, and how many may: each has a
/// descriptor.
const BEFORE_REFUSAL: Duration = Duration::from_millis(250);
const TURNED_AWAY: usize = 64;

/// The process of a peer, as a handle that no other process can come to have.
#[derive(Clone)]
pub(super) struct PeerProcess(pub(super) Arc<OwnedFd>);

/// The systemd unit that a peer was in when it connected.
#[derive(Clone)]
pub(super) struct PeerUnit(pub(super) Arc<str>);

/// A socket and what is behind it.
pub struct Door {
    /// What its connections are counted under.
    pub name: &'static str,
    /// Whether the process behind each connection is kept in hand: it costs a descriptor each.
    pub asks_for_process: Box<dyn Fn() -> bool + Send + Sync>,
    /// The socket.
    pub socket: BoundSocket,
    /// The endpoints it serves.
    pub endpoints: Endpoints,
}

/// The running server.
pub struct Server {
    stop: watch::Sender<bool>,
    connections: Vec<(&'static str, Arc<Connections>)>,
    grace: Duration,
    doors: Vec<tokio::task::JoinHandle<()>>,
}

impl Server {
    /// Starts to accept at each door. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// A socket that cannot be listened on.
    pub fn serve(doors: Vec<Door>, limits: &Limits) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut server =
            Self { stop, connections: Vec::new(), grace: limits.shutdown_grace, doors: Vec::new() };
        for door in doors {
            // Each door counts for itself: a full API must not lock out the operator.
            let connections = Connections::new(limits.connections, limits.connections_per_uid);
            server.connections.push((door.name, Arc::clone(&connections)));
            let listener = UnixListener::from_std(door.socket.listener()?)?;
            let serving = Serving {
                endpoints: door.endpoints,
                protocol: protocol(limits),
                answer_timeout: limits.answer_timeout,
                asks_for_process: door.asks_for_process.into(),
                connections,
                // Without a successor at the same socket, there is nobody to make a new connection to.
                linger: if door.socket.outlives_us() { LINGER } else { Duration::ZERO },
                stopped: stopped.clone(),
            };
            let mut stopped = stopped.clone();
            server.doors.push(tokio::spawn(async move {
                // Dropped, and so closed and removed, as soon as the daemon is to stop.
                let socket = door.socket;
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
                drop(socket);
            }));
        }
        Ok(server)
    }

    /// The connections of each door.
    pub(super) fn connections(&self) -> Vec<(&'static str, Arc<Connections>)> {
        self.connections.clone()
    }

    /// Refuses new connections, lets the requests that have begun end, and closes what is left after the grace.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        for door in self.doors {
            let _ = door.await;
        }
        let closed = async {
            for (_, connections) in &self.connections {
                connections.all_closed().await;
            }
        };
        if tokio::time::timeout(self.grace, closed).await.is_err() {
            let open: usize = self.connections.iter().map(|(_, connections)| connections.count()).sum();
            tracing::warn!(open, "closing connections whose requests did not end in time");
        }
    }
}

/// What every connection of a door shares.
#[derive(Clone)]
struct Serving {
    endpoints: Endpoints,
    protocol: http1::Builder,
    answer_timeout: Duration,
    asks_for_process: Arc<dyn Fn() -> bool + Send + Sync>,
    connections: Arc<Connections>,
    linger: Duration,
    stopped: watch::Receiver<bool>,
}

fn protocol(limits: &Limits) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes)
        .max_headers(limits.headers)
        .half_close(false);
    protocol
}

async fn accept(listener: UnixListener, serving: Serving) {
    let mut failing = false;
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failing = false;
                let serving = serving.clone();
                match peer_of(&stream) {
                    Ok(peer) => match serving.connections.enter(peer.uid) {
                        Some(place) => drop(tokio::spawn(serve(stream, peer, place, serving))),
                        None => drop(tokio::spawn(turn_away(stream, Arc::clone(&turned_away)))),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "a peer has no credentials; its connection is closed");
                    }
                }
            }
            Err(error) => {
                // Once, not twenty times a second.
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "cannot accept connections; trying on");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    Ok(Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() })
}

/// Serves one connection until it ends, fails or the daemon stops.
async fn serve(stream: UnixStream, peer: Peer, place: Place, serving: Serving) {
    let Serving { endpoints, protocol, answer_timeout, asks_for_process, linger, mut stopped, .. } = serving;
    let process = peer_process(&stream).ok();
    let unit = process.as_ref().and_then(|process| unit_of(process.as_fd()).ok()?);
    let unit = unit.map(|unit| PeerUnit(unit.into()));
    let process = process.filter(|_| asks_for_process()).map(|process| PeerProcess(Arc::new(process)));
    let (ending, is_stopped) = (Ending::default(), stopped.clone());
    let answering = ending.clone();
    let service = service_fn(move |request| {
        let mut request = answering.begin(request);
        request.extensions_mut().insert(peer);
        if let Some(unit) = unit.clone() {
            request.extensions_mut().insert(unit);
        }
        if let Some(process) = process.clone() {
            request.extensions_mut().insert(process);
        }
        // In a box: an idle connection needs no room for it.
        let answer = Box::pin(endpoints.clone().answer(request));
        let (answering, is_stopped) = (answering.clone(), is_stopped.clone());
        answer.map(move |answer| Ok::<_, Infallible>(answering.finish(answer, *is_stopped.borrow())))
    });
    let stream = match SocketStream::new(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection cannot be served, and is closed"),
    };
    let mut stream = Box::pin(TimeoutStream::new(stream));
    // Whoever does not read keeps a place that others could have.
    stream.as_mut().set_write_timeout_pinned(Some(answer_timeout));
    let stream = TokioIo::new(ShortReads::new(Stream::new(stream, ending.clone())));
    let mut connection = protocol.serve_connection(stream, service);
    let mut stopping = pin!(async move {
        drop(stopped.wait_for(|stop| *stop).await);
        sleep(linger).await;
    });
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => ended,
        () = &mut stopping => {
            ending.bring_about(|context| connection.poll_without_shutdown(context)).await
        }
    };
    let parts = connection.into_parts();
    // What did not become a request is not answered, but its sender is told all the same.
    let refusal = ended.err().and_then(|error| refusal(&error, !parts.read_buf.is_empty()));
    if let Some((code, detail)) = refusal.filter(|_| ending.speak()) {
        refuse(parts.io.into_inner(), code, detail);
    }
    drop(place);
}

/// Why a connection ended that something came on which is no request; `is_open` if it stopped half way.
fn refusal(error: &hyper::Error, is_open: bool) -> Option<(Code, &'static str)> {
    if error.is_timeout() {
        is_open.then_some((Code::RequestTimeout, Code::RequestTimeout.title()))
    } else if error.is_parse_too_large() {
        Some((Code::HeadTooLarge, "limits.max_header_bytes and limits.max_headers are the most"))
    } else if error.is_parse() {
        Some((Code::InvalidRequest, "this is no request of HTTP/1.1, or its length is in doubt"))
    } else {
        None
    }
}

/// Refuses a connection for which there is no place, after its request has come if that is soon: what is answered before
/// is not taken for an answer by every client.
async fn turn_away(mut stream: UnixStream, turned_away: Arc<Semaphore>) {
    if let Ok(_one_of_few) = turned_away.try_acquire() {
        let _ = tokio::time::timeout(BEFORE_REFUSAL, stream.read_u8()).await;
    }
    refuse(stream, Code::Overloaded, Code::Overloaded.title());
}

/// Answers outside of any request, if the peer is ready to read, and closes the connection.
fn refuse(mut stream: impl AsyncWrite + Send + Unpin + 'static, code: Code, detail: &'static str) {
    tokio::spawn(async move {
        const PATIENCE: Duration = Duration::from_secs(1);
        let answer = problem::whole_answer(code, detail);
        let _ = tokio::time::timeout(PATIENCE, stream.write_all(answer.as_bytes())).await;
    });
}
