//! `vaultctl` where something is not as it should be: a JWT in the wrong place, a vault that is away.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use vault_client::{Code, Problem};
use vault_tests::{Limit, Vault, built, finish};

/// The form of a JWT (RFC 7519): its header begins with `{"`.
const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJqdGkiOiJzZWNyZXQifQ.c2lnbmF0dXJl";

#[test]
fn a_jwt_in_the_wrong_place_is_not_repeated() {
    let vault = Vault::start();
    let is_silent = |said: &str| !["eyJ", "c2lnbmF0"].iter().any(|part| said.contains(part));
    for line in [
        format!("open {JWT}"),
        format!("detokenize {JWT}"),
        format!("show '{JWT}'"),
        format!("status --token-file {JWT}"),
        format!("status --token-file={JWT}"),
        format!("status --approval-file {JWT}"),
        format!("open --file ./{JWT}"),
        format!("tokenize --metadata=session={JWT}"),
        format!("login --approves {JWT}"),
        JWT.to_owned(),
    ] {
        let refused = vault.ctl(&line, "");
        assert!(refused.complaint(2).contains("looks like a JWT"), "{refused:?}");
        assert!(is_silent(&refused.stderr) && refused.stdout.is_empty(), "{refused:?}");
    }
    for more in [vec![], vec!["--json"]] {
        let mut command = vault.ctl_command();
        let refused = finish(command.args(["status"]).args(more).env("VAULT_TOKEN_FILE", JWT), "");
        assert!(refused.complaint(1).contains("is a JWT, not a file"), "{refused:?}");
        assert!(is_silent(&refused.stderr), "{refused:?}");
    }
    // A name with dots is only that.
    let missing = vault.ctl("status --token-file eyJ.jwt", "");
    assert!(missing.complaint(1).contains("cannot read the token file eyJ.jwt"), "{missing:?}");
}

/// What a vault does with a request, of which it knows the path and the bearer token.
enum Reply {
    Json(Value),
    Refuse(Code),
    Close,
    Hang,
}

/// A vault on a socket of its own that asks `reply` about each request.
fn stub(mut reply: impl FnMut(&str, &str) -> Reply + Send + 'static) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("v.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        // Those that get no answer.
        let mut waiting = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            let (path, token) = request(&stream);
            match reply(&path, &token) {
                Reply::Json(body) => answer(&stream, "200 OK", "application/json", &body),
                Reply::Refuse(code) => {
                    let problem = serde_json::to_value(Problem::new(code, "told so by the test", "r-1"));
                    answer(
                        &stream,
                        &format!("{} Refused", code.status()),
                        "application/problem+json",
                        &problem.unwrap(),
                    );
                }
                Reply::Close => drop(stream),
                Reply::Hang => waiting.push(stream),
            }
        }
    });
    (dir, socket)
}

/// The path of one request and its bearer token.
fn request(stream: &UnixStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut path, mut token, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        match words[0].to_ascii_lowercase().as_str() {
            "authorization:" => words[2].clone_into(&mut token),
            "content-length:" => length = words[1].parse().unwrap(),
            _ if path.is_empty() => words[1].clone_into(&mut path),
            _ => {}
        }
    }
    let _ = reader.take(length).read_to_end(&mut Vec::new());
    (path, token)
}

fn answer(mut stream: &UnixStream, status: &str, kind: &str, body: &Value) {
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
}

/// A vault that goes away after its first answer: its JWT is worth nothing then, and nobody can log in for a while. One
/// who tries is `kept` waiting.
fn away(first: Value, then: Value, kept: bool) -> (TempDir, PathBuf) {
    let (mut logins, mut is_first, mut then) = (0, true, Some(then));
    stub(move |path, token| match (path, token) {
        ("/v1/login", _) => {
            logins += 1;
            match logins {
                // Longer than the client tries by itself.
                2..=5 => Reply::Close,
                6 if kept => Reply::Hang,
                _ => Reply::Json(json!({
                    "access_token": format!("jwt-{logins}"), "token_type": "Bearer", "expires_in": 300,
                    "scope": "audit:read keys:read", "tenant": "dev",
                })),
            }
        }
        (_, "jwt-1") if std::mem::take(&mut is_first) => Reply::Json(first.clone()),
        (_, "jwt-1") => Reply::Refuse(Code::ExpiredJwt),
        _ => then.take().map_or(Reply::Hang, Reply::Json),
    })
}

fn ctl(socket: &PathBuf, line: &str) -> Command {
    let mut command = Command::new(built("vaultctl"));
    for name in ["VAULT_TOKEN", "VAULT_TOKEN_FILE", "VAULT_APPROVAL"] {
        command.env_remove(name);
    }
    command.args(line.split_whitespace()).env("VAULT_SOCKET", socket).env("VAULT_ADMIN_SOCKET", socket);
    command
}

#[test]
fn whoever_stays_with_a_vault_waits_while_it_is_away() {
    let job = |state: &str| json!({"state": state, "done": 5, "left": 7, "failed": 0, "rate": 1.5, "eta": 5});
    let (_dir, socket) = away(job("running"), job("done"), true);
    let followed = finish(&mut ctl(&socket, "rewrap follow --json --timeout 2"), "");
    assert_eq!(serde_json::from_str::<Value>(&followed.stdout).unwrap()["state"], "done", "{followed:?}");
    assert!(followed.complaint(0).starts_with("vaultctl: waiting: cannot log in: "), "{followed:?}");

    let page = |entries: Value| json!({"entries": entries, "next": 1, "more": false});
    let (_dir, socket) = away(page(json!([])), page(json!([{"seq": 1}])), false);
    let mut follow = ctl(&socket, "audit tail -f --json --timeout 2");
    let mut child = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _limit = Limit::on(&child);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert_eq!(line, "{\"seq\":1}\n", "{said}");
    assert!(said.starts_with("vaultctl: waiting: cannot log in: ") && said.lines().count() == 1, "{said}");
}

/// A vault with two pages of `page`, by their numbers from 1; then the caller is locked.
fn two_pages(page: impl Fn(u64) -> Value + Send + 'static) -> (TempDir, PathBuf) {
    let mut pages = 0;
    stub(move |path, _| {
        if path == "/v1/login" {
            return Reply::Json(json!({
                "access_token": "jwt", "token_type": "Bearer", "expires_in": 300, "scope": "tokens:search",
                "tenant": "dev",
            }));
        }
        pages += 1;
        if pages > 2 { Reply::Refuse(Code::CallerLocked) } else { Reply::Json(page(pages)) }
    })
}

#[test]
fn pages_that_were_found_are_shown_where_the_next_cannot_be_had() {
    let record = json!({
        "token": "tok_1", "bin": "411111", "last4": "1111", "masked_pan": "411111******1111", "brand": "visa",
        "template": "default", "created_at": "2026-11-23T00:00:00Z", "expires_at": null, "key_version": 1,
        "ciphertext_id": "c", "fingerprint": "f", "metadata": {},
    });
    let (_dir, socket) =
        two_pages(move |page| json!({ "tokens": [record.clone()], "cursor": format!("page-{}", page + 1) }));
    let found = finish(&mut ctl(&socket, "search --all --json --holder Ada"), "");
    assert!(found.complaint(1).starts_with("vaultctl: stopped after 2 records: "), "{found:?}");
    let answer: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!((answer["tokens"].as_array().unwrap().len(), &answer["cursor"]), (2, &json!("page-3")));
}

#[test]
fn entries_that_were_found_say_where_to_go_on_from() {
    let (_dir, socket) =
        two_pages(|page| json!({ "entries": [{ "seq": page * 7 }], "next": page * 10, "more": true }));
    let found = finish(&mut ctl(&socket, "audit search --json"), "");
    assert!(found.complaint(1).contains("(caller_locked, "), "{found:?}");
    let answer: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(answer, json!({ "entries": [{ "seq": 7 }, { "seq": 14 }], "next": 20, "more": true }));
}
