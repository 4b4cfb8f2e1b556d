//! Raw bytes on the real server's sockets, from somebody whom nobody vouches for.

use std::{sync::LazyLock, time::Duration};

use crate::{
    answer::answers,
    server::{PAN, Server, Via},
};

/// So that the fuzzer need not wait long for what does not come.
const PATIENCE: Duration = Duration::from_millis(3);

static SERVER: LazyLock<(Server, String)> = LazyLock::new(|| {
    let server = Server::start(false, |limits| {
        limits.header_timeout = PATIENCE;
        limits.body_timeout = PATIENCE;
    });
    let token = server.token();
    (server, token)
});

/// An `a` at the beginning chooses the admin socket; each 0xff ends a write. The server answers whole answers of HTTP/1.1
/// and closes the connection, lets nobody in, and tells nothing of what it holds.
pub fn stream(bytes: &[u8]) {
    let (server, token) = &*SERVER;
    let (via, bytes) = match bytes.strip_prefix(b"a") {
        Some(rest) => (Via::Admin, rest),
        None => (Via::Api, bytes),
    };
    let said = server.talk(
        via,
        bytes.split_inclusive(|byte| *byte == 0xff).map(|piece| piece.strip_suffix(&[0xff]).unwrap_or(piece)),
    );
    for secret in [PAN, token] {
        assert!(!has(&said, secret.as_bytes()) || has(bytes, secret.as_bytes()), "it tells of a card");
    }
    for answer in answers(&said) {
        answer.expect_good();
        let body = String::from_utf8_lossy(&answer.body);
        // What anybody may read.
        let is_public = [r#"{"status":"#, r#"{"keys":[{"kty":"#, r#"{"openapi":"#, "# HELP "]
            .iter()
            .any(|head| body.starts_with(head));
        assert!(
            answer.status >= 400 || body.is_empty() || is_public,
            "{} to a stranger: {body}",
            answer.status
        );
        assert!(answer.body.is_empty() || body.len() < 200_000);
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
