//! Ending connections so that no request is lost.
//!
//! Whoever writes to a connection that is closed at that moment cannot know whether its request was read. So once the
//! daemon is to stop, each answer says `connection: close`, and a connection without a request is closed for reading
//! first: from then on the kernel refuses what is written to it (EPIPE), so that its writer knows, and what was written
//! before is there to be read and answered.

use std::{
    io::{self, IoSlice},
    os::fd::AsRawFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use axum::http::{HeaderValue, Response, header::CONNECTION};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tokio_io_timeout::TimeoutStream;

/// What the parts of one connection know of its end. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<State>);

#[derive(Default)]
struct State {
    /// A request is being answered.
    busy: AtomicBool,
    /// No further request is to be read.
    wanted: AtomicBool,
}

impl Ending {
    /// To be called when a request has come.
    pub(super) fn begin(&self) {
        self.0.busy.store(true, Relaxed);
    }

    /// To be called with the answer to it; `is_last` if the daemon is to stop.
    pub(super) fn finish<B>(&self, answer: &mut Response<B>, is_last: bool) {
        if is_last {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.0.busy.store(false, Relaxed);
    }

    /// Has the connection end: at once without a request, and with one after its answer, which says so. The connection is to
    /// be polled afterwards.
    pub(super) fn want(&self) {
        self.0.wanted.store(true, Relaxed);
    }

    fn is_due(&self) -> bool {
        self.0.wanted.load(Relaxed) && !self.0.busy.load(Relaxed)
    }
}

/// A connection's stream, which ends as [`Ending`] says.
pub(super) struct Stream {
    inner: Pin<Box<TimeoutStream<UnixStream>>>,
    ending: Ending,
    /// Nobody can write to it any more.
    is_shut: bool,
    /// Some of an answer waits for the caller to read.
    is_blocked: bool,
}

impl Stream {
    pub(super) fn new(inner: Pin<Box<TimeoutStream<UnixStream>>>, ending: Ending) -> Self {
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
            let _ = shutdown(self.inner.as_ref().get_ref().get_ref().as_raw_fd(), Shutdown::Read);
        }
        let before = buffer.filled().len();
        ready!(self.inner.as_mut().poll_read(context, buffer))?;
        let has_ended = buffer.filled().len() == before;
        // The end that was made here is none to a request that came just before.
        if has_ended && self.is_shut && (self.is_blocked || !self.ending.is_due()) {
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
        let written = self.inner.as_mut().poll_write(context, buffer);
        self.is_blocked = written.is_pending();
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.inner.as_mut().poll_write_vectored(context, buffers);
        self.is_blocked = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(context)
    }
}
