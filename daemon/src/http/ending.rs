//! Ending connections so that no request is lost.
//!
//! Whoever writes to a connection that is closed at that moment cannot know whether its request was read. So once the
//! daemon is to stop, each answer says `connection: close`, and a connection without a request is closed for reading
//! first: from then on the kernel refuses what is written to it (EPIPE), so that its writer knows, and what was written
//! before is there to be read and answered.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Request, Response, header::CONNECTION},
};
use futures_util::task::AtomicWaker;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_io_timeout::TimeoutStream;

use super::{body::Coming, stream::SocketStream};

/// How an answer begins.
const FIRST_WORDS: &[u8] = b"HTTP/1.";

/// What the parts of one connection know of its end. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<State>);

#[derive(Default)]
struct State {
    /// A request is being answered.
    busy: AtomicBool,
    /// A request has come whose answer is not sent to its end.
    answering: AtomicBool,
    /// No further request is to be read.
    wanted: AtomicBool,
    /// Who is to look whether it can end now.
    waker: AtomicWaker,
    /// All that had come is read, and nothing can come any more.
    is_dry: AtomicBool,
    /// Who waits for more of a body.
    reader: AtomicWaker,
}

impl Ending {
    /// To be called when `request` has come; gives it as it is to be answered.
    pub(super) fn begin(&self, request: Request<Incoming>) -> Request<Body> {
        self.0.busy.store(true, Relaxed);
        self.speak();
        request.map(|body| Body::new(Coming::new(body, self.clone())))
    }

    /// To be called with the answer to it, which is what is to be sent then; `is_last` if the daemon is to stop.
    pub(super) fn finish(self, mut answer: Response<Body>, is_last: bool) -> Response<Body> {
        if is_last {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if answer.body().size_hint().exact().is_none() {
            return answer.map(|body| Body::new(Growing { body, ending: self }));
        }
        self.done();
        answer
    }

    fn done(&self) {
        self.0.busy.store(false, Relaxed);
        self.0.waker.wake();
    }

    /// Lets an answer out that hyper was not asked for; false if another is on its way.
    pub(super) fn speak(&self) -> bool {
        !self.0.answering.swap(true, Relaxed)
    }

    /// All that hyper had to send is sent.
    fn sent(&self) {
        if !self.0.busy.load(Relaxed) {
            self.0.answering.store(false, Relaxed);
        }
    }

    /// Whether `bytes` begin an answer that hyper makes by itself, to what is no request: it has no body and no request id.
    fn is_unasked(&self, bytes: &[u8]) -> bool {
        !self.0.answering.load(Relaxed) && bytes.starts_with(FIRST_WORDS)
    }

    /// Has the connection that `poll` serves end, and waits for it: at once without a request, and with one after its answer.
    pub(super) async fn bring_about<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        self.0.wanted.store(true, Relaxed);
        poll_fn(|context| {
            self.0.waker.register(context.waker());
            poll(context)
        })
        .await
    }

    /// Ready when all that has come is read and nothing can come any more.
    pub(super) fn poll_dry(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.reader.register(context.waker());
        if self.0.is_dry.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn run_dry(&self) {
        self.0.is_dry.store(true, Relaxed);
        self.0.reader.wake();
    }

    fn is_due(&self) -> bool {
        self.0.wanted.load(Relaxed) && !self.0.busy.load(Relaxed)
    }
}

/// The body of an answer that is made while it is sent: until it is at its end, the request has not been answered.
struct Growing {
    body: Body,
    ending: Ending,
}

impl Drop for Growing {
    fn drop(&mut self) {
        self.ending.done();
    }
}

impl hyper::body::Body for Growing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's stream, which ends as [`Ending`] says. What hyper says unasked goes nowhere: whoever serves the connection
/// learns of it by the error that it ends with, and answers.
pub(super) struct Stream {
    inner: Pin<Box<TimeoutStream<SocketStream>>>,
    ending: Ending,
    /// Nobody can write to it any more.
    is_shut: bool,
    /// Some of an answer waits for the caller to read.
    is_blocked: bool,
}

impl Stream {
    pub(super) fn new(inner: Pin<Box<TimeoutStream<SocketStream>>>, ending: Ending) -> Self {
        Self { inner, ending, is_shut: false, is_blocked: false }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_shut && self.ending.is_due() {
            self.is_shut = true;
            // Only a peer that is gone already makes it fail.
            let _ = self.inner.as_ref().get_ref().get_ref().shut_for_reading();
        }
        let before = buffer.filled().len();
        ready!(self.inner.as_mut().poll_read(context, buffer))?;
        let has_ended = buffer.filled().len() == before;
        // The end that was made here is none to a request that came just before, whole.
        if has_ended && self.is_shut && (self.is_blocked || !self.ending.is_due()) {
            self.ending.run_dry();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.ending.is_unasked(buffer) {
            return Poll::Ready(Ok(buffer.len()));
        }
        let written = self.inner.as_mut().poll_write(context, buffer);
        self.is_blocked = written.is_pending();
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if buffers.first().is_some_and(|buffer| self.ending.is_unasked(buffer)) {
            return Poll::Ready(Ok(buffers.iter().map(|buffer| buffer.len()).sum()));
        }
        let written = self.inner.as_mut().poll_write_vectored(context, buffers);
        self.is_blocked = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ending.sent();
        self.inner.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::ready, io::ErrorKind, sync::Arc, time::Duration};

    use futures_util::{FutureExt as _, stream};
    use hyper::{server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
        sync::Notify,
        task::JoinHandle,
        time::timeout,
    };

    use super::{super::body::read_bytes, *};

    const PATIENCE: Duration = Duration::from_secs(30);
    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: vault\r\n\r\n";

    /// The caller's end of a connection that is to end after `stop`, and whose answers are in two parts: the second is
    /// made after `go`.
    fn connection(stop: Arc<Notify>, go: Arc<Notify>) -> (UnixStream, JoinHandle<hyper::Result<()>>) {
        serve(stop, move |_, ending| {
            let go = Arc::clone(&go);
            let parts = stream::unfold(0, move |part| {
                let go = Arc::clone(&go);
                async move {
                    let text = match part {
                        0 => "first",
                        1 => {
                            go.notified().await;
                            "second"
                        }
                        _ => return None,
                    };
                    Some((Ok::<_, Infallible>(text), part + 1))
                }
            });
            ready(ending.finish(Response::new(Body::from_stream(parts)), false))
        })
    }

    /// The same, of one whose answers are the bodies that came.
    fn echoing(stop: Arc<Notify>) -> (UnixStream, JoinHandle<hyper::Result<()>>) {
        serve(stop, |request, ending| async {
            let answer = match read_bytes(request.into_body(), 1_000, PATIENCE).await {
                Ok(bytes) => Response::new(Body::from(bytes.to_vec())),
                Err(failure) => failure.answer("r-1"),
            };
            ending.finish(answer, true)
        })
    }

    fn serve<F: Future<Output = Response<Body>> + Send + 'static>(
        stop: Arc<Notify>,
        answer: impl Fn(Request<Body>, Ending) -> F + Send + Sync + 'static,
    ) -> (UnixStream, JoinHandle<hyper::Result<()>>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ending = Ending::default();
        let answering = ending.clone();
        let service = service_fn(move |request| {
            let request = answering.begin(request);
            answer(request, answering.clone()).map(Ok::<_, Infallible>)
        });
        let stream =
            Stream::new(Box::pin(TimeoutStream::new(SocketStream::new(theirs).unwrap())), ending.clone());
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let served = tokio::spawn(async move {
            tokio::select! {
                ended = &mut connection => return ended,
                () = stop.notified() => {}
            }
            ending.bring_about(|context| Pin::new(&mut connection).poll(context)).await
        });
        (ours, served)
    }

    async fn read_until(stream: &mut UnixStream, end: &str) {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(end) {
            let bytes = timeout(PATIENCE, stream.read_buf(&mut read)).await.unwrap().unwrap();
            assert_ne!(bytes, 0, "{}", String::from_utf8_lossy(&read));
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_being_made_is_sent_to_its_end() {
        let (stop, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (mut caller, served) = connection(Arc::clone(&stop), Arc::clone(&go));
        caller.write_all(REQUEST.as_bytes()).await.unwrap();
        read_until(&mut caller, "first").await;
        stop.notify_one();
        tokio::task::yield_now().await;
        go.notify_one();
        read_until(&mut caller, "second\r\n0\r\n\r\n").await;
        assert!(timeout(PATIENCE, served).await.unwrap().unwrap().is_ok());
        assert_eq!(caller.write_all(REQUEST.as_bytes()).await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    /// The caller's end of `connection`, which is to end before `request` is read, after an answer up to `expected`.
    async fn answered(
        connection: impl FnOnce(Arc<Notify>) -> (UnixStream, JoinHandle<hyper::Result<()>>),
        request: &str,
        expected: &str,
    ) -> UnixStream {
        let stop = Arc::new(Notify::new());
        let (mut caller, served) = connection(Arc::clone(&stop));
        tokio::task::yield_now().await;
        stop.notify_one();
        // Nobody has read it when the connection is to end: there is one thread here.
        caller.try_write(request.as_bytes()).unwrap();
        read_until(&mut caller, expected).await;
        assert!(timeout(PATIENCE, served).await.unwrap().unwrap().is_ok());
        caller
    }

    #[tokio::test]
    async fn a_request_that_came_before_the_end_is_answered() {
        let go = Arc::new(Notify::new());
        go.notify_one();
        answered(|stop| connection(stop, go), REQUEST, "second\r\n0\r\n\r\n").await;
    }

    #[tokio::test]
    async fn a_body_that_came_before_the_end_is_taken() {
        for rest in [
            "content-length: 4\r\n\r\nabcd",
            "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n",
        ] {
            answered(echoing, &format!("POST / HTTP/1.1\r\nhost: vault\r\n{rest}"), "\r\n\r\nabcd").await;
        }
    }

    #[tokio::test]
    async fn a_request_whose_body_is_cut_off_by_the_end_is_refused_at_once() {
        for rest in [
            "content-length: 4\r\n\r\n",
            "content-length: 4\r\n\r\nabc",
            "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n",
            "expect: 100-continue\r\ncontent-length: 4\r\n\r\n",
        ] {
            let request = format!("POST / HTTP/1.1\r\nhost: vault\r\n{rest}");
            let mut caller = answered(echoing, &request, r#""code":"overloaded""#).await;
            assert_eq!(caller.write_all(b"d").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
        }
    }
}
