//! A connection of which the event loop hears only what it waits for.
//!
//! tokio's own stream asks the kernel to tell it of room for writing, too. A Unix socket has that each time its peer has
//! read an answer, and for most of them nobody here wants to know: it would wake the thread that serves everybody.

use std::{
    io::{self, IoSlice, Read as _, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

/// A Unix stream socket.
#[derive(Debug)]
pub struct SocketStream {
    /// Gone only while it is registered for more.
    socket: Option<AsyncFd<UnixStream>>,
    /// It had no room for an answer once, and since then is waited for room on.
    is_slow: bool,
}

impl SocketStream {
    /// Takes over a connection. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: tokio::net::UnixStream) -> io::Result<Self> {
        let socket = register(stream.into_std()?, Interest::READABLE)?;
        Ok(Self { socket: Some(socket), is_slow: false })
    }

    /// Makes the kernel refuse what the peer writes from now on.
    ///
    /// # Errors
    /// If the peer has gone already.
    pub(super) fn shut_for_reading(&self) -> io::Result<()> {
        self.socket()?.get_ref().shutdown(Shutdown::Read)
    }

    fn socket(&self) -> io::Result<&AsyncFd<UnixStream>> {
        self.socket.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_writing(
        &mut self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if !self.is_slow {
            match write(self.socket()?.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for_room(context)?,
                done => return Poll::Ready(done),
            }
        }
        let socket = self.socket()?;
        loop {
            let mut guard = ready!(socket.poll_write_ready(context))?;
            if let Ok(done) = guard.try_io(|socket| write(socket.get_ref())) {
                return Poll::Ready(done);
            }
        }
    }

    /// Registers anew, for room as well.
    fn wait_for_room(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let stream = self.socket.take().map(AsyncFd::into_inner).ok_or(io::ErrorKind::NotConnected)?;
        let socket = register(stream, Interest::READABLE | Interest::WRITABLE)?;
        self.is_slow = true;
        // Who waited for the old one to be readable waits for this one; being told too soon does no harm.
        let _ = socket.poll_read_ready(context)?;
        self.socket = Some(socket);
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "what took its place is unsafe: it wants a descriptor that stays open, as a UnixStream's does"
)]
fn register(stream: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(stream, interest)
}

impl AsyncRead for SocketStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.socket()?;
        let room = buffer.initialize_unfilled();
        loop {
            let mut guard = ready!(socket.poll_read_ready(context))?;
            let Ok(read) = guard.try_io(|socket| socket.get_ref().read(room)) else { continue };
            let read = read?;
            if (1..room.len()).contains(&read) {
                // All that there was (epoll(7), edge-triggered): the next read need not find out.
                guard.clear_ready();
            }
            buffer.advance(read);
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for SocketStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(context, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(context, |mut socket| socket.write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket()?.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// More than a socket has room for.
    const MUCH: usize = 4 << 20;

    #[tokio::test]
    async fn a_peer_that_reads_late_gets_everything_and_is_heard() {
        let (mut peer, ours) = tokio::net::UnixStream::pair().unwrap();
        let mut ours = SocketStream::new(ours).unwrap();
        let echo = async {
            let mut word = [0; 5];
            ours.read_exact(&mut word).await.unwrap();
            ours.write_all(&vec![7; MUCH]).await.unwrap();
            ours.read_exact(&mut word).await.unwrap();
            ours.write_all(&word).await.unwrap();
            ours.shutdown().await.unwrap();
            assert_eq!(ours.read(&mut word).await.unwrap(), 0);
        };
        let ask = async {
            peer.write_all(b"first").await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            peer.write_all(b"again").await.unwrap();
            let mut all = Vec::new();
            peer.read_to_end(&mut all).await.unwrap();
            assert_eq!((all.len(), all.ends_with(b"again")), (MUCH + 5, true));
            drop(peer);
        };
        timeout(PATIENCE, async { tokio::join!(echo, ask) }).await.unwrap();
    }
}
