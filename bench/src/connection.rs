//! One HTTP/1.1 connection over a Unix socket, as lean as a client can be.
//!
//! What the client spends is missing from the server on a machine where both share the cores, so there is no
//! HTTP library here: the head of the request is made once, the answer's is parsed in place, both buffers are
//! reused. Its stream is the vault's own: tokio's has the kernel wake its thread when the server has read a request.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};
use vaultd::http::SocketStream;

use crate::payload::Body;

/// A server and who asks it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its Unix socket.
    pub(crate) socket: PathBuf,
    /// The JWT that is sent along, if the server wants one.
    pub(crate) jwt: Option<String>,
}

/// A keep-alive connection that sends JSON to one path.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: SocketStream,
    /// Everything up to the value of `content-length`.
    head: Vec<u8>,
    body: Vec<u8>,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl Connection {
    /// Connects to `target`, to post to `path`.
    pub(crate) async fn open(target: &Target, path: &str) -> Result<Self> {
        Self::open_for(target, "POST", path).await
    }

    /// Connects to `target`, for requests of another `method`.
    pub(crate) async fn open_for(target: &Target, method: &str, path: &str) -> Result<Self> {
        let stream = UnixStream::connect(&target.socket).await.with_context(|| show(&target.socket))?;
        let stream = SocketStream::new(stream)?;
        let authorization =
            target.jwt.as_ref().map_or_else(String::new, |jwt| format!("authorization: Bearer {jwt}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}\
             content-type: application/json\r\ncontent-length: "
        );
        Ok(Self {
            stream,
            head: head.into_bytes(),
            body: Vec::new(),
            request: Vec::new(),
            received: Vec::new(),
        })
    }

    /// Sends what `body` writes and waits for the whole answer, which must have the status `expected` and no
    /// error inside (a batch fails item by item, under a 200).
    pub(crate) async fn post(&mut self, body: &mut impl Body, expected: u16) -> Result<&[u8]> {
        self.send(body).await?;
        let Answer { status, body } = self.receive().await?;
        if status != expected || memchr::memmem::find(body, br#""error""#).is_some() {
            let beginning = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES)]);
            bail!("answered {status} where {expected} is right: {beginning}");
        }
        Ok(body)
    }

    async fn send(&mut self, body: &mut impl Body) -> Result<()> {
        self.body.clear();
        body.write(&mut self.body);
        self.request.clear();
        self.request.extend_from_slice(&self.head);
        self.request.extend_from_slice(self.body.len().to_string().as_bytes());
        self.request.extend_from_slice(b"\r\n\r\n");
        self.request.extend_from_slice(&self.body);
        self.stream.write_all(&self.request).await.context("sending a request")
    }

    async fn receive(&mut self) -> Result<Answer<'_>> {
        self.received.clear();
        let head = loop {
            self.read_some(READ_BYTES).await?;
            if let Some(head) = Head::parse(&self.received)? {
                break head;
            }
        };
        let end = head.length + head.content_length;
        while self.received.len() < end {
            self.read_some(end - self.received.len()).await?;
        }
        ensure!(self.received.len() == end, "the answer is longer than its content-length");
        Ok(Answer { status: head.status, body: &self.received[head.length..] })
    }

    async fn read_some(&mut self, room: usize) -> Result<()> {
        self.received.reserve(room);
        let count = self.stream.read_buf(&mut self.received).await.context("receiving an answer")?;
        ensure!(count > 0, "the server closed the connection in the middle of an answer");
        Ok(())
    }
}

struct Answer<'a> {
    status: u16,
    body: &'a [u8],
}

/// What has to be known of an answer's head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head itself.
    length: usize,
    content_length: usize,
}

impl Head {
    /// `None` if more bytes are needed.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(length) = response.parse(bytes).context("parsing an answer's head")?
        else {
            return Ok(None);
        };
        let status = response.code.context("an answer without a status")?;
        let mut content_length = None;
        for header in response.headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                content_length = Some(std::str::from_utf8(header.value)?.parse()?);
            }
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("the answer ({status}) is chunked, which this load generator does not read");
            }
        }
        let content_length = content_length.with_context(|| format!("a {status} without content-length"))?;
        Ok(Some(Self { status, length, content_length }))
    }
}

fn show(socket: &Path) -> String {
    format!("connecting to {}", socket.display())
}

/// More headers than any answer of the vault has.
const MAX_HEADERS: usize = 32;
/// Holds an answer that is not a batch whole, so that one `read` is enough.
const READ_BYTES: usize = 4 * 1024;
/// How much of a wrong answer is shown: a problem document fits.
const SHOWN_BYTES: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_when_it_is_whole() {
        let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nx-request-id: 1\r\n\r\n{}";
        assert_eq!(Head::parse(&answer[..30]).unwrap(), None);
        let head = Head { status: 201, length: answer.len() - 2, content_length: 2 };
        assert_eq!(Head::parse(answer).unwrap(), Some(head));
    }

    #[test]
    fn an_answer_of_unknown_length_is_refused() {
        for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"] {
            assert!(Head::parse(head.as_bytes()).is_err());
        }
    }
}
