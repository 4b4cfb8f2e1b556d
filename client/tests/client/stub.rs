//! A vault that answers what a test tells it to: hyper on a Unix socket in a temporary directory.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};
use vault_client::{ClientBuilder, Code, Problem, RetryPolicy, VaultClient};

/// What the stub does with one request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers with a JSON body.
    Json(u16, Value),
    /// Answers with a problem, and `Retry-After` in seconds.
    Problem(Code, Option<u64>),
    /// Answers 200 with a JSON body and the field `RateLimit`.
    Limited(Value, &'static str),
    /// Answers 204.
    Empty,
    /// Closes the connection without an answer.
    Break,
    /// Closes the connection in the middle of the answer's body.
    BreakInBody,
    /// Never answers.
    Hang,
    /// Answers 200 with that many bytes; `announced` says whether `Content-Length` tells.
    Bytes { count: usize, announced: bool },
}

/// What the stub has seen of one request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) approval: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// A running stub. Stops when dropped.
pub(crate) struct Stub {
    /// Removed with the stub; none if the socket is the test's own.
    _dir: Option<TempDir>,
    socket: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    acceptor: JoinHandle<()>,
}

impl Stub {
    /// Gives `replies` one after the other, and the last one again and again.
    pub(crate) fn replying(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies: Vec<_> = replies.into_iter().collect();
        Self::deciding(move |number, _| replies[number.min(replies.len() - 1)].clone())
    }

    /// Asks `decide` about each request; its first argument counts them from 0.
    pub(crate) fn deciding(decide: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("v.sock");
        Self::listening(socket, Some(dir), decide)
    }

    /// As [`Stub::deciding`], on the test's own `socket`.
    pub(crate) fn at(socket: &Path, decide: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listening(socket.to_owned(), None, decide)
    }

    fn listening(
        socket: PathBuf,
        dir: Option<TempDir>,
        decide: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(&socket).unwrap();
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let acceptor =
            tokio::spawn(accept(listener, Arc::new(decide), Arc::clone(&seen), Arc::clone(&connections)));
        Self { _dir: dir, socket, seen, connections, acceptor }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A builder for a client of this stub that waits little between attempts.
    pub(crate) fn builder(&self) -> ClientBuilder {
        impatient(VaultClient::builder(self.socket())).token("aaa.bbb.ccc".into())
    }

    pub(crate) fn client(&self) -> VaultClient {
        self.builder().build().unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// Waits between attempts that do not slow a test down.
pub(crate) fn impatient(builder: ClientBuilder) -> ClientBuilder {
    let wait = Duration::from_millis(5);
    builder.timeout(Duration::from_secs(5)).retry(RetryPolicy { max_attempts: 3, base: wait, cap: wait })
}

/// Answers the first request of every connection with `answer`, whatever it is, and closes.
pub(crate) fn answer_raw(socket: &Path, answer: &'static [u8]) -> JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer).await;
        }
    })
}

type Decide = dyn Fn(usize, &Seen) -> Reply + Send + Sync;

async fn accept(
    listener: UnixListener,
    decide: Arc<Decide>,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        *connections.lock().unwrap() += 1;
        tokio::spawn(serve(stream, Arc::clone(&decide), Arc::clone(&seen)));
    }
}

async fn serve(stream: UnixStream, decide: Arc<Decide>, seen: Arc<Mutex<Vec<Seen>>>) {
    let service = service_fn(|request: Request<Incoming>| {
        let (decide, seen) = (Arc::clone(&decide), Arc::clone(&seen));
        async move {
            let request = look_at(request).await;
            let reply = {
                let mut seen = seen.lock().unwrap();
                let reply = decide(seen.len(), &request);
                seen.push(request);
                reply
            };
            answer(reply).await
        }
    });
    // A connection that was told to break ends with an error.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn look_at(request: Request<Incoming>) -> Seen {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    Seen {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        authorization: header("authorization"),
        approval: header("x-vault-approval"),
        content_type: header("content-type"),
        body: request.into_body().collect().await.unwrap().to_bytes().to_vec(),
    }
}

async fn answer(reply: Reply) -> io::Result<Response<AnswerBody>> {
    let response = Response::builder();
    let whole = |bytes: Vec<u8>| AnswerBody::Whole(Full::new(Bytes::from(bytes)));
    let response = match reply {
        Reply::Json(status, body) => response.status(status).body(whole(body.to_string().into_bytes())),
        Reply::Limited(body, limit) => {
            response.header("ratelimit", limit).body(whole(body.to_string().into_bytes()))
        }
        Reply::Problem(code, retry_after) => {
            let problem = Problem::new(code, "told so by the test", "r-1");
            let mut response =
                response.status(code.status()).header("content-type", "application/problem+json");
            if let Some(seconds) = retry_after {
                response = response.header("retry-after", seconds);
            }
            response.body(whole(serde_json::to_vec(&problem).unwrap()))
        }
        Reply::Empty => response.status(204).body(whole(Vec::new())),
        Reply::Break => return Err(io::ErrorKind::ConnectionAborted.into()),
        Reply::BreakInBody => response.body(AnswerBody::Torn { sent: false }),
        Reply::Hang => std::future::pending().await,
        Reply::Bytes { count, announced: true } => response.body(whole(vec![b' '; count])),
        Reply::Bytes { count, announced: false } => response.body(AnswerBody::Unannounced { left: count }),
    };
    Ok(response.unwrap())
}

enum AnswerBody {
    Whole(Full<Bytes>),
    Unannounced { left: usize },
    Torn { sent: bool },
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let infallible = |never: Infallible| match never {};
        match &mut *self {
            Self::Whole(body) => {
                std::pin::Pin::new(body).poll_frame(context).map(|f| f.map(|f| f.map_err(infallible)))
            }
            Self::Unannounced { left: 0 } => std::task::Poll::Ready(None),
            Self::Unannounced { left } => {
                let size = (*left).min(65_536);
                *left -= size;
                std::task::Poll::Ready(Some(Ok(Frame::data(vec![b' '; size].into()))))
            }
            Self::Torn { sent: true } => {
                std::task::Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())))
            }
            Self::Torn { sent } => {
                *sent = true;
                std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(br#"{"pan":"#)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Unannounced { .. } => SizeHint::default(),
            Self::Torn { .. } => SizeHint::with_exact(100),
        }
    }
}
