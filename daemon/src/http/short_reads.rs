//! Reads that keep hyper's buffer small, so that it never holds what came with an earlier request.
//!
//! A buffer has room for one read, and is let go, and so wiped, once less is left of it. hyper makes a larger one when
//! a read has filled it; small requests after a large one then leave their bytes in it, one behind the other, for as long as
//! the connection is idle. So no read fills it. `tests/tests/memory.rs` looks for what is left.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One byte less than hyper has room for at first (`INIT_BUFFER_SIZE` in its `proto/h1/io.rs`).
const MOST_BYTES: usize = 8_191;

/// A stream that gives at most [`MOST_BYTES`] at a time.
pub(super) struct ShortReads<S>(pub(super) S);

impl<S: AsyncRead + Unpin> AsyncRead for ShortReads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining().min(MOST_BYTES);
        // Which wipes what a request has left there, whose room is used again.
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.0).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ShortReads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, parts)
    }

    /// Without it hyper would copy answers into a buffer of its own, which it keeps.
    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
