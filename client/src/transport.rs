//! One request, one answer, over pooled connections to the socket.

use std::{
    error::Error as StdError,
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, Uri,
    body::{Body, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    http::uri::Authority,
};
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use hyperlocal::{UnixConnector, UnixStream};
use tower::{ServiceExt, util::MapResponse};

use crate::{
    Error,
    answer::{Answer, MAX_ANSWER_BYTES},
    limit::limit,
    wiping::WipingBuffer,
};

/// The longest socket path: `sun_path` of Linux, less its NUL (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;
/// How long an idle connection is kept: shorter than the 30 s after which vaultd closes one as it is shipped
/// (`limits.header_timeout_seconds`), so that no request is written into a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The most bytes of an answer that the HTTP library buffers at a time; headers must fit.
const MAX_READ_BUFFER_BYTES: usize = 64 * 1024;

/// The second JWT of an operation that needs two pairs of eyes.
const APPROVAL: HeaderName = HeaderName::from_static("x-vault-approval");

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a request shows of who asks.
#[derive(Clone, Copy, Default)]
pub(crate) struct Credentials<'a> {
    pub(crate) authorization: Option<&'a HeaderValue>,
    pub(crate) approval: Option<&'a HeaderValue>,
}

/// `UnixStream` has a `hyper::rt::Write` of its own, but that has no vectored writes: hyper would copy each body
/// behind its headers, into a buffer that is not wiped. Through `TokioIo` both go out in one `writev`, uncopied.
type Connector = MapResponse<UnixConnector, fn(UnixStream) -> TokioIo<UnixStream>>;

/// The pool of connections to one socket.
pub(crate) struct Transport {
    http: Client<Connector, Full<Bytes>>,
    socket: PathBuf,
    authority: Authority,
}

impl Transport {
    /// Connections to `socket`, of which `max_idle` stay open when there is nothing to do. Connects to nothing yet.
    pub(crate) fn new(socket: PathBuf, max_idle: usize) -> Result<Self, Error> {
        let authority = authority(&socket)?;
        let connector: Connector = UnixConnector.map_response(TokioIo::new);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(max_idle)
            .http1_max_buf_size(MAX_READ_BUFFER_BYTES)
            .build(connector);
        Ok(Self { http, socket, authority })
    }

    /// The socket it connects to.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends one request and reads its whole answer, whatever its status.
    pub(crate) async fn exchange(
        &self,
        method: &Method,
        path: &str,
        credentials: Credentials<'_>,
        body: Option<&Bytes>,
    ) -> Result<Answer, Error> {
        let request = self.request(method, path, credentials, body)?;
        let response = self.http.request(request).await.map_err(|error| self.failure(&error))?;
        read(response).await
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        credentials: Credentials<'_>,
        body: Option<&Bytes>,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let unusable = |_| Error::Config("a token or a name is too long to be part of a path".into());
        let uri = Uri::builder()
            .scheme("unix")
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(unusable)?;
        let mut request = Request::new(Full::new(body.cloned().unwrap_or_default()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in [(AUTHORIZATION, credentials.authorization), (APPROVAL, credentials.approval)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        Ok(request)
    }

    /// `error`, or why nobody can ever listen there.
    fn no_socket(&self, error: io::Error) -> io::Error {
        let is_other = || fs::metadata(&self.socket).is_ok_and(|file| !file.file_type().is_socket());
        match error.kind() {
            // Linux says so of files that are no sockets, too (connect(2)).
            io::ErrorKind::ConnectionRefused if is_other() => {
                io::Error::new(io::ErrorKind::InvalidInput, "it is no socket")
            }
            _ => error,
        }
    }

    /// What the HTTP library's error means.
    fn failure(&self, error: &legacy::Error) -> Error {
        let source = self.no_socket(io_cause(error));
        let cause = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>());
        if error.is_connect() {
            return Error::Connect { socket: self.socket.clone(), source };
        }
        // No connection took the request, or one handed it back: a vault that is full closes it at once.
        let is_unsent = error.connect_info().is_none() || cause.is_some_and(hyper::Error::is_canceled);
        // A request whose last bytes could not be written never arrived whole: the vault closed a pooled
        // connection, by a restart most likely, before the client noticed.
        if is_unsent || source.kind() == io::ErrorKind::BrokenPipe {
            let source = io::Error::from(io::ErrorKind::BrokenPipe);
            return Error::Connect { socket: self.socket.clone(), source };
        }
        match cause {
            Some(cause) if cause.is_parse() => Error::Protocol("it is not HTTP/1.1".into()),
            _ => Error::Broken,
        }
    }
}

/// The socket's path as the URI authority that the connector expects.
fn authority(socket: &Path) -> Result<Authority, Error> {
    let text = socket.to_str().unwrap_or_default();
    if text.is_empty() || text.contains('\0') {
        return Err(Error::Config("the socket's path is empty or not UTF-8".into()));
    }
    if text.len() > MAX_SOCKET_PATH_BYTES {
        return Err(Error::Config(format!(
            "the socket's path has more than {MAX_SOCKET_PATH_BYTES} bytes, which Linux does not take: {text}"
        )));
    }
    let uri = Uri::from(hyperlocal::Uri::new(text, "/"));
    uri.into_parts()
        .authority
        .ok_or_else(|| Error::Config(format!("the socket's path cannot be used: {text}")))
}

/// The system's error below `error`.
fn io_cause(error: &legacy::Error) -> io::Error {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(cause) = cause.downcast_ref::<io::Error>() {
            return cause
                .raw_os_error()
                .map_or_else(|| io::Error::from(cause.kind()), io::Error::from_raw_os_error);
        }
        next = cause.source();
    }
    io::Error::from(io::ErrorKind::Other)
}

async fn read(response: Response<Incoming>) -> Result<Answer, Error> {
    let (head, mut body) = response.into_parts();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > MAX_ANSWER_BYTES {
        return Err(too_large());
    }
    let mut buffer = WipingBuffer::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Error::Broken)?.into_data() else { continue };
        if buffer.len().saturating_add(data.len()) > MAX_ANSWER_BYTES {
            return Err(too_large());
        }
        buffer.push(&data);
    }
    Ok(Answer {
        status: head.status,
        is_problem: is_problem(&head.headers),
        retry_after: retry_after(&head.headers),
        limit: limit(&head.headers),
        request_id: request_id(&head.headers),
        body: buffer,
    })
}

fn too_large() -> Error {
    Error::Protocol(format!("it is larger than {MAX_ANSWER_BYTES} bytes"))
}

fn is_problem(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/problem+json")
}

/// `Retry-After` in whole seconds; the vault sends no dates (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// `X-Request-Id`, as far as it can be shown.
fn request_id(headers: &HeaderMap) -> Option<String> {
    headers.get(REQUEST_ID)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_becomes_an_authority() {
        assert!(authority(Path::new("/run/vaultd/vaultd.sock")).is_ok());
        assert!(authority(Path::new("relative dir/ü?#.sock")).is_ok());
    }

    #[test]
    fn a_socket_path_that_cannot_work_is_refused() {
        for path in [String::new(), "a\0b".into(), "x".repeat(MAX_SOCKET_PATH_BYTES + 1)] {
            assert!(matches!(authority(Path::new(&path)), Err(Error::Config(_))), "{path:?}");
        }
    }

    #[test]
    fn the_headers_of_an_answer_are_understood() {
        let mut headers = HeaderMap::new();
        assert!(!is_problem(&headers) && retry_after(&headers).is_none());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("Application/Problem+JSON; charset=utf-8"));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("3"));
        assert!(is_problem(&headers));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(3)));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Fri, 31 Dec 1999 23:59:59 GMT"));
        assert_eq!(retry_after(&headers), None);
    }
}
