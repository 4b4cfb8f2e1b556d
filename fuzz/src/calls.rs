//! Requests of somebody who may do everything: paths, queries, cursors, approvals, bodies.

use std::{sync::LazyLock, time::Duration};

use vault_api::LoginAnswer;

use crate::{
    answer::answers,
    server::{Server, Via},
};

static SERVER: LazyLock<(Server, String)> = LazyLock::new(|| {
    let server = Server::start(true, |limits| limits.request_timeout = Duration::from_secs(10));
    let text = b"POST /v1/login HTTP/1.1\r\nhost: v\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let answer = answers(&server.talk(Via::Api, [text.as_slice()])).pop().expect("an answer");
    let login: LoginAnswer = serde_json::from_slice(&answer.body).expect("it logs in");
    (server, login.access_token.expose().to_owned())
});

/// A method and a target in the first line (`a` before it for the admin socket), an approval in the second, a body in the
/// rest; `{token}` is a token, `{jwt}` a JWT and `{approval}` a second person's approval of this request. The answer is one of HTTP/1.1, no fault of the vault's, and no refusal
/// repeats a card number.
pub fn call(text: &str) {
    let (server, jwt) = &*SERVER;
    let mut parts = text.splitn(3, '\n');
    let (line, approval, body) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let line = line.unwrap_or_default();
    let (via, line) = match line.strip_prefix('a') {
        Some(line) => (Via::Admin, line),
        None => (Via::Api, line),
    };
    // It would only wait.
    if line.contains("wait") {
        return;
    }
    let token = if text.contains("{token}") { server.token() } else { String::new() };
    let filled = |text: &str| text.replace("{token}", &token).replace("{jwt}", jwt);
    let (line, body) = (filled(line), filled(body));
    let approval = approval.filter(|approval| !approval.is_empty());
    let approval = approval.map_or_else(String::new, |jwt| {
        let mut jwt = filled(jwt);
        if jwt.contains("{approval}") {
            jwt = jwt.replace("{approval}", &server.approval(&line, &body));
        }
        format!("x-vault-approval: {jwt}\r\n")
    });
    let request = format!(
        "{line} HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {jwt}\r\n{approval}content-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let said = answers(&server.talk(via, [request.as_bytes()]));
    for answer in &said {
        answer.expect_good();
    }
    assert!(!said.is_empty(), "no answer");
}
