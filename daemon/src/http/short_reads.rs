//! Reads that keep hyper's buffer small, so that it never holds what came with an earlier request.
//!
//! A buffer has room for one read, and is let go, and so wiped, once less is left of it. hyper makes a larger one when
//! a read has filled it; small requests after a large one then leave their bytes in it, one behind the other, for as long as
//! the connection is idle. So no read fills it. `tests/tests/memory.rs` looks for what is left.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroize;

/// One byte less than hyper has room for at first (`INIT_BUFFER_SIZE` in its `proto/h1/io.rs`).
const MOST_BYTES: usize = 8_191;

thread_local! {
    /// Where bytes come in before they are copied to their buffer: to wipe the buffer's whole room for each read would cost
    /// more than the read. Wiped after each.
    static LANDING: RefCell<[u8; MOST_BYTES]> = const { RefCell::new([0; MOST_BYTES]) };
}

/// A stream that gives at most [`MOST_BYTES`] at a time.
pub(super) struct ShortReads<S> {
    stream: S,
    /// How many bytes at a buffer's end no read of this stream has come to.
    untouched: usize,
}

impl<S> ShortReads<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, untouched: usize::MAX }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ShortReads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        LANDING.with_borrow_mut(|landing| {
            let room = buffer.remaining().min(MOST_BYTES);
            let mut part = ReadBuf::new(landing.get_mut(..room).unwrap_or_default());
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
            // What a request has left there, whose room is used again. New room is clean: what is freed is wiped.
            buffer.initialize_unfilled_to(buffer.remaining().saturating_sub(self.untouched));
            buffer.put_slice(part.filled());
            self.untouched = self.untouched.min(buffer.remaining());
            part.filled_mut().zeroize();
            Poll::Ready(Ok(()))
        })
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ShortReads<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    /// Without it hyper would copy answers into a buffer of its own, which it keeps.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, mem::MaybeUninit};

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn room_that_is_used_again_is_wiped() {
        let mut stream = ShortReads::new(b"a long request".chain(b"short".as_slice()));
        let mut room = [MaybeUninit::uninit(); 32];
        for left in ["a long request", "short\0\0\0\0\0\0\0\0\0"] {
            let mut buffer = ReadBuf::uninit(&mut room);
            poll_fn(|context| Pin::new(&mut stream).poll_read(context, &mut buffer)).await.unwrap();
            assert_eq!(buffer.initialized(), left.as_bytes());
        }
    }
}
