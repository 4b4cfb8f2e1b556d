//! Two pairs of eyes, on a real vault.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vault_tests::{Answer, Minter, Pans, Vault, exchange, not_run};

const UNLOCK: &str = "/v1/locks/unlock";
const BODY: &str = r#"{"issuer":"payments-idp","subject":"checkout"}"#;

fn vault() -> Vault {
    Vault::start_with(|config| {
        config
            + "\n[approvals]\noperations = [\"keys.destroy\", \"locks.unlock\", \"detokenize.batch\"]\n\
               max_age_seconds = 120\nfree_batch_items = 2\n"
    })
}

fn digest(method: &str, path: &str, body: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{method} {path}\n{body}")))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// An approval of bob that is good for unlocking but for `changes`.
fn approval(minter: &Minter, changes: &Value) -> String {
    let mut claims = json!({ "sub": "bob", "scope": "approve", "approves": digest("POST", UNLOCK, BODY) });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    minter.mint(&claims)
}

/// A request of alice with these approvals.
fn send(vault: &Vault, socket: &str, method: &str, path: &str, body: &str, approvals: &[&str]) -> Answer {
    let scopes = "locks:remove keys:destroy detokenize";
    let jwt = vault.minter().mint(&json!({ "sub": "alice", "scope": scopes }));
    let approvals =
        approvals.iter().fold(String::new(), |all, jwt| all + "x-vault-approval: " + jwt + "\r\n");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {jwt}\r\n{approvals}content-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(&vault.path(socket), request.as_bytes())
}

fn unlock(vault: &Vault, approvals: &[&str]) -> Answer {
    send(vault, "admin.sock", "POST", UNLOCK, BODY, approvals)
}

fn detail(answer: &Answer) -> String {
    assert_eq!((answer.status, answer.code().as_str()), (403, "approval_required"), "{answer:?}");
    answer.json()["detail"].as_str().unwrap().to_owned()
}

#[test]
fn a_second_person_approves_one_request_once() {
    let mut vault = vault();
    let minter = vault.minter();
    let missing = detail(&unlock(&vault, &[]));
    assert!(missing.contains(&digest("POST", UNLOCK, BODY)), "{missing}");

    let good = approval(&minter, &json!({}));
    assert_eq!(unlock(&vault, &[&good]).json(), json!({ "unlocked": false }));
    vault.kill();
    vault.restart();
    assert!(detail(&unlock(&vault, &[&good])).contains("used before"), "across kill -9");

    let entry = fs::read_to_string(vault.path("audit/audit-00000001.jsonl")).unwrap();
    let entry = entry.lines().find(|line| line.contains("\"approved_by\"")).unwrap();
    let entry: Value = serde_json::from_str(entry).unwrap();
    assert_eq!((entry["subject"].as_str(), entry["approved_by"].as_str()), (Some("alice"), Some("bob")));
    assert_eq!(entry["approved_by_issuer"], "dev-issuer");
    assert_eq!((entry["op"].as_str(), entry["outcome"].as_str()), (Some("locks.unlock"), Some("granted")));
}

#[test]
fn what_is_wrong_with_an_approval_is_said() {
    let vault = vault();
    let minter = vault.minter();
    let past = |age: u64| json!({ "iat": now() - age, "exp": now() + 60 });
    for (changes, why) in [
        (json!({ "sub": "alice" }), "another person"),
        (json!({ "scope": "locks:remove" }), "scope"),
        (json!({ "tenant": "other" }), "another tenant"),
        (json!({ "approves": null }), "another request"),
        (json!({ "approves": digest("POST", UNLOCK, "{}") }), "another request"),
        (json!({ "approves": digest("POST", "/v1/locks", BODY) }), "another request"),
        (past(125), "too old"),
        (json!({ "jti": null }), "jti"),
        (json!({ "aud": "elsewhere" }), "not valid"),
        (json!({ "iss": "nobody" }), "not valid"),
        (json!({ "iat": 1_000_000_000, "exp": 1_000_000_600 }), "not valid"),
    ] {
        let found = detail(&unlock(&vault, &[&approval(&minter, &changes)]));
        assert!(found.contains(why), "{changes}: {found}");
    }
    let (one, other) = (approval(&minter, &json!({})), approval(&minter, &json!({ "sub": "eve" })));
    assert!(detail(&unlock(&vault, &[&one, &other])).contains("two"));
    assert!(detail(&unlock(&vault, &["nonsense"])).contains("not valid"));
    assert_eq!(unlock(&vault, &[&approval(&minter, &past(60))]).status, 200, "old, but not too old");

    let as_bearer =
        vault.admin_as(&approval(&minter, &json!({ "scope": "approve locks:read" })), "GET", "/v1/locks", "");
    assert_eq!(as_bearer.code(), "invalid_jwt", "an approval is nothing else");
    let entries = vault.admin("GET", "/v1/audit?op=locks.list&last=1").json();
    assert_eq!(entries["entries"][0]["subject"], "bob", "{entries}");
}

#[test]
fn a_body_that_is_refused_before_its_caller_is_has_a_caller_in_the_log() {
    let vault = Vault::start_with(|config| {
        config + "\n[limits]\nmax_body_bytes = 2048\n[approvals]\noperations = [\"detokenize\"]\n"
    });
    let large = json!({ "token": "t".repeat(4_096) }).to_string();
    assert_eq!(vault.request("POST", "/v1/detokenize", &large).code(), "body_too_large");
    let entries = vault.admin("GET", "/v1/audit?op=detokenize").json();
    let entry = &entries["entries"][0];
    assert_eq!((&entry["code"], &entry["tenant"]), (&json!("body_too_large"), &json!("dev")), "{entries}");
}

#[test]
fn no_kind_of_use_fills_the_memory_of_another() {
    let vault = Vault::start_with(|config| {
        config.replace("[auth]\n", "[auth]\nsingle_use_scopes = [\"tokens:read\"]\nreplay_entries = 2\n")
            + "\n[envelopes]\nreplay_entries = 3\n[approvals]\noperations = [\"locks.unlock\"]\n"
    });
    let minter = vault.minter();
    let card = json!({ "card_number": "4111111111111111", "expiry_date": "12/31" });
    let seal = json!({ "meta_data": card, "single_use": true }).to_string();
    let open = || {
        let sealed = vault.request("POST", "/v1/envelopes", &seal).json();
        vault.request("POST", "/v1/envelopes/open", &json!({ "jwt": sealed["jwt"] }).to_string())
    };
    let made = vault.request("POST", "/v1/tokenize", r#"{"pan":"4111111111111111"}"#).json();
    let path = format!("/v1/tokens/{}", made["token"].as_str().unwrap());
    let read = || vault.request_as(&minter.mint(&json!({})), "GET", &path, "");
    let approved = || unlock(&vault, &[&approval(&minter, &json!({}))]);
    let fills = |most: usize, once: &dyn Fn() -> Answer| {
        for number in 0..most {
            let answer = once();
            assert_eq!(answer.status, 200, "{number}: {answer:?}");
        }
        let answer = once();
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"), "{answer:?}");
    };
    fills(3, &open);
    fills(2, &read);
    fills(2, &approved);
}

#[test]
fn keys_and_bulk_reveals_are_held_to_it_and_nothing_else_is() {
    let vault = vault();
    let minter = vault.minter();
    let path = "/v1/keys/record/1";
    let destroy = |approvals: &[&str]| send(&vault, "admin.sock", "DELETE", path, "", approvals);
    detail(&destroy(&[]));
    let good = approval(&minter, &json!({ "approves": digest("DELETE", path, "") }));
    assert_eq!(destroy(&[&good]).code(), "key_in_use", "approved, and refused for its own reason");

    let card = |pan: &String| json!({ "pan": pan });
    let items: Vec<_> = Pans::new().take(3).iter().map(card).collect();
    let made = vault.request("POST", "/v1/tokenize/batch", &json!({ "items": items }).to_string()).json();
    let tokens: Vec<_> =
        made["results"].as_array().unwrap().iter().map(|made| made["token"].clone()).collect();
    let reveal = |count: usize, approvals: &[&str]| {
        let body = json!({ "tokens": tokens[..count] }).to_string();
        send(&vault, "vaultd.sock", "POST", "/v1/detokenize/batch", &body, approvals)
    };
    assert_eq!(reveal(2, &[]).status, 200, "few enough");
    let missing = detail(&reveal(3, &[]));
    let needed = missing.split('"').nth(1).unwrap();
    let good = approval(&minter, &json!({ "approves": needed }));
    assert!(detail(&reveal(3, &[&approval(&minter, &json!({}))])).contains("another request"));
    let revealed = reveal(3, &[&good]);
    assert!(revealed.json()["results"][2]["pan"].is_string(), "{revealed:?}");
    assert_eq!(vault.admin("GET", "/v1/keys").status, 200);
}

#[test]
fn one_account_with_two_names_approves_nothing_for_itself() {
    let vault = vault();
    let minter = vault.minter();
    let bound_to = |uid: u32| approval(&minter, &json!({ "cnf": { "uid": uid } }));
    let me = fs::metadata("/proc/self").unwrap().uid();
    let found = detail(&unlock(&vault, &[&bound_to(me)]));
    assert!(found.contains("account"), "{found}");
    assert_eq!(unlock(&vault, &[&bound_to(me + 1)]).status, 200);
}

#[test]
fn a_locked_person_approves_nothing_and_bodies_have_their_bounds() {
    let vault = Vault::start_with(|config| {
        config
            + "\n[approvals]\noperations = [\"locks.unlock\", \"detokenize\"]\n[guards.subject]\npans_per_hour = 1\n\
               lock_at_pans_per_hour = 2\n[limits]\nmax_body_bytes = 2000\n"
    });
    let minter = vault.minter();
    let bob = minter.mint(&json!({ "sub": "bob" }));
    let tokens = ["4000000000000000", "4000000000000001"];
    let all = json!({ "tokens": tokens }).to_string();
    assert_eq!(vault.request_as(&bob, "POST", "/v1/detokenize/batch", &all).code(), "caller_locked");
    assert!(detail(&unlock(&vault, &[&approval(&minter, &json!({}))])).contains("locked"));

    let single = |reveal: &str| {
        let body = json!({ "token": tokens[0], "reveal": reveal }).to_string();
        send(&vault, "vaultd.sock", "POST", "/v1/detokenize", &body, &[])
    };
    detail(&single("full"));
    assert_eq!(single("masked").code(), "unknown_token", "a mask needs nobody else");
    let large = "x".repeat(2_001);
    assert_eq!(send(&vault, "admin.sock", "POST", UNLOCK, &large, &[]).code(), "body_too_large");
    let locked = vault.request_as(&bob, "POST", "/v1/detokenize", &large);
    assert_eq!(locked.code(), "caller_locked", "whatever it sends");
}

#[test]
fn what_cannot_be_approved_is_refused_in_the_configuration() {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    vault.change_config(|config| config + "\n[approvals]\noperations = [\"tokenize\"]\n");
    let checked = vault.run("check");
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.code() == Some(2) && said.contains("approvals.operations"), "{said}");
}

/// The example of docs/operations.md, as it stands there.
#[test]
fn two_accounts_of_this_machine_do_it_as_the_manual_says() {
    const BOB: u32 = 60_002;
    let me = fs::metadata("/proc/self").unwrap().uid();
    let vault = Vault::start_with(|config| {
        let bob = format!(
            "[[auth.peers]]\nname = \"bob\"\nuid = {BOB}\ntenant = \"dev\"\nscopes = [\"approve\"]\n\n[tokens]"
        );
        config.replace("[tokens]", &bob).replace("[server]", "[server]\nsocket_mode = \"0666\"")
            + "\n[approvals]\noperations = [\"locks.unlock\"]\n"
    });
    fs::set_permissions(vault.path(""), PermissionsExt::from_mode(0o711)).unwrap();
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md")).unwrap();
    let (_, section) = manual.split_once("## Two pairs of eyes").unwrap();
    let blocks: Vec<_> =
        section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    let [asks, approves, does] = blocks[..3] else { panic!("{blocks:?}") };
    let run = |block: &str, shown: &str, uid: u32, known: [(&str, &str); 2]| {
        let block = block.replace("/run/vaultd", vault.path("").to_str().unwrap().trim_end_matches('/'));
        let script = format!("set -eu\n{block}\nprintf %s \"${shown}\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).envs(known).uid(uid).gid(uid).current_dir("/");
        let output = vault.limit_curl(&mut command).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let jwt = run(asks, "jwt", me, [("", ""); 2].map(|_| ("NOTHING", "")));
    if me != 0 {
        not_run("only root can become bob");
        return;
    }
    let approval = run(approves, "approval", BOB, [("NOTHING", ""); 2]);
    let does = format!("body='{BODY}'\n{does}");
    let answer = run(&does, "answer", me, [("jwt", &jwt), ("approval", &approval)]);
    assert_eq!(answer, r#"{"unlocked":false}"#);

    let client = |body: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--unix-socket", vault.socket().to_str().unwrap(), "-d", body]);
        command.args(["--max-time", "30"]);
        command.args(["-H", "content-type: application/json", "http://vault/v1/login"]).uid(BOB).gid(BOB);
        serde_json::from_slice::<Value>(&command.output().unwrap().stdout).unwrap()
    };
    assert_eq!(client(r#"{"approves":"short"}"#)["code"], "invalid_request");
}
