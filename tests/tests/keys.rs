//! Keys that live: rotated, rewrapped and destroyed while callers go on.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use vault_client::{RetryPolicy, SearchRequest, TokenizeRequest, VaultClient};
use vault_tests::{
    Module, PURPOSES, Pans, Vault, assert_all_there, chaotic, connect, destroy_retired, fast_vault,
    fast_vault_with, fill, keys, rewrap, rotate, short_lived, until,
};

const CALLERS: usize = 64;

fn impatient(vault: &Vault) -> VaultClient {
    let once = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    vault.client_builder().retry(once).max_idle_connections(CALLERS).build().unwrap()
}

/// Callers that do everything that depends on a key, and check every answer.
struct Load {
    stop: Arc<AtomicBool>,
    latencies: Arc<Mutex<Vec<Duration>>>,
    callers: Vec<tokio::task::JoinHandle<Vec<(String, String)>>>,
}

impl Load {
    fn start(client: &VaultClient, cards: &Arc<Vec<(String, String)>>, fresh: &[Vec<String>]) -> Self {
        let (stop, latencies) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<Duration>>>::default());
        let callers = fresh.iter().map(|fresh| {
            let (client, cards) = (client.clone(), Arc::clone(cards));
            let (stop, latencies) = (Arc::clone(&stop), Arc::clone(&latencies));
            let mut fresh = fresh.clone();
            tokio::spawn(async move {
                let mut made = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    call(&client, &cards, &mut fresh, &mut made).await;
                    latencies.lock().unwrap().push(started.elapsed());
                }
                made
            })
        });
        Self { callers: callers.collect(), stop, latencies }
    }

    /// The 99th percentile of what was measured since the last call.
    fn p99(&self) -> Duration {
        let mut latencies = std::mem::take(&mut *self.latencies.lock().unwrap());
        latencies.sort_unstable();
        latencies[latencies.len() * 99 / 100]
    }

    /// Every card that was new.
    async fn stop(self) -> Vec<(String, String)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut made = Vec::new();
        for caller in self.callers {
            made.extend(caller.await.unwrap());
        }
        made
    }
}

/// One request of one kind or another; none may fail.
async fn call(
    client: &VaultClient,
    cards: &[(String, String)],
    fresh: &mut Vec<String>,
    made: &mut Vec<(String, String)>,
) {
    let (pan, token) = &cards[fastrand::usize(..cards.len())];
    match fastrand::u8(..10) {
        0..4 => assert_eq!(client.detokenize(token).await.unwrap().pan.expose(), pan),
        4..8 => {
            let seen = client.tokenize(&TokenizeRequest::new(pan.as_str())).await.unwrap();
            assert_eq!((&seen.token, seen.created), (token, false), "the same card, the same token");
        }
        8 => {
            let Some(pan) = fresh.pop() else { return };
            let answer = client.tokenize(&TokenizeRequest::new(pan.as_str())).await.unwrap();
            made.push((pan, answer.token));
        }
        _ => {
            let found = client.search(&by_pan(pan)).await.unwrap();
            assert_eq!(found.tokens.iter().map(|found| &found.token).collect::<Vec<_>>(), [token]);
        }
    }
}

fn by_pan(pan: &str) -> SearchRequest {
    SearchRequest { pan: Some(pan.into()), ..SearchRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_rotated_rewrapped_and_destroyed_under_64_callers() {
    let records = std::env::var("VAULT_TEST_RECORDS").ok().and_then(|text| text.parse().ok());
    let records: usize = records.unwrap_or(20_000);
    // All callers share one session of the HSM, where each waits for the calls before its own.
    let vault = fast_vault_with(|config| {
        config
            .replace("request_timeout_seconds = 5\n", "request_timeout_seconds = 15\n")
            .replace("[hsm]\n", "[hsm]\ncall_timeout_seconds = 12\n")
    });
    let client = impatient(&vault);
    let mut pans = Pans::new();
    let cards = Arc::new(fill(&client, &pans.take(records)).await);
    let fresh: Vec<_> = (0..CALLERS).map(|_| pans.take(500)).collect();

    let load = Load::start(&client, &cards, &fresh);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = load.p99();
    let (vault, progress) = tokio::task::spawn_blocking(move || {
        for purpose in PURPOSES {
            assert_eq!(rotate(&vault, purpose), 2, "{purpose}");
        }
        let refused = vault.admin("DELETE", "/v1/keys/record/1");
        assert_eq!(refused.code(), "key_in_use", "its census is not zero");
        let progress = rewrap(&vault);
        (vault, progress)
    })
    .await
    .unwrap();
    let during = load.p99();
    let made = load.stop().await;
    eprintln!("{records} records: p99 {before:?} before, {during:?} during; {progress}");

    assert_eq!(progress["state"], "done", "{progress}");
    assert!(progress["done"].as_u64().unwrap() >= u64::try_from(records).unwrap(), "{progress}");
    for key in keys(&vault) {
        if key["state"] == "retired" {
            assert!(key["records"].is_null() || key["records"] == 0, "{key}");
        }
    }
    destroy_retired(&vault);
    assert_eq!(keys(&vault).iter().filter(|key| key["state"] == "destroyed").count(), PURPOSES.len());
    assert_all_there(&client, &cards).await;
    assert_all_there(&client, &made).await;
    let again = fill(&client, &cards.iter().map(|(pan, _)| pan.clone()).collect::<Vec<_>>()).await;
    assert_eq!(*cards, again, "the same card has the same token afterwards");
    // pkcs11-tool has no way to pass NSS its parameters.
    if Module::of_this_run() != Module::Nss {
        let token = vault.pkcs11_tool(&["--list-objects"]);
        let objects = String::from_utf8_lossy(&token.stdout);
        assert!(!objects.contains("-v1") && objects.contains("vaultd-record-v2"), "{objects}");
    }
}

#[test]
fn a_key_that_is_spent_is_rotated_by_itself_or_refuses() {
    let mut vault = Vault::start_with(|config| config + "\n[keys]\nmax_encryptions = 1000\n");
    let mut pans = Pans::new();
    let tokenize = |vault: &Vault, pans: &[String]| {
        let items: Vec<_> = pans.iter().map(|pan| serde_json::json!({ "pan": pan })).collect();
        let body = serde_json::json!({ "items": items }).to_string();
        vault.request("POST", "/v1/tokenize/batch", &body).json()["results"].as_array().unwrap().clone()
    };
    for _ in 0..25 {
        let results = tokenize(&vault, &pans.take(100));
        assert!(results.iter().all(|result| result["created"] == true), "{results:?}");
    }
    let versions: Vec<_> = keys(&vault).into_iter().filter(|key| key["purpose"] == "record").collect();
    assert!(versions.len() >= 3, "2500 encryptions take three keys: {versions:?}");
    let sealed: Vec<_> = versions.iter().map(|key| key["records"].as_u64().unwrap()).collect();
    assert!(
        sealed.iter().all(|records| *records <= 1_000) && sealed.iter().sum::<u64>() == 2_500,
        "{versions:?}"
    );
    assert_eq!(versions.iter().filter(|key| key["state"] == "active").count(), 1, "{versions:?}");

    assert!(vault.stop().success());
    vault.change_config(|config| config.replace("= 1000\n", "= 1000\nwhen_spent = \"refuse\"\n"));
    vault.restart();
    // A restart gives up what was reserved of a key's encryptions, and here that is all of them.
    let body = serde_json::json!({ "pan": pans.next_pan() }).to_string();
    assert_eq!(vault.request("POST", "/v1/tokenize", &body).code(), "hsm_unavailable");
    let status = vault.admin("GET", "/v1/status").json();
    let warned =
        |key: &&Value| key["warning"].as_str().is_some_and(|warning| warning.contains("last encryption"));
    assert_eq!(status["keys"].as_array().unwrap().iter().filter(warned).count(), 1, "{status}");
    rotate(&vault, "record");
    assert_eq!(vault.request("POST", "/v1/tokenize", &body).status, 201);
}

#[test]
fn an_old_jwt_is_good_until_it_ends_and_its_key_is_in_the_key_set() {
    let vault = Vault::start();
    let login = vault.request("POST", "/v1/login", "{}").json();
    let jwt = login["access_token"].as_str().unwrap().to_owned();
    let card = r#"{"meta_data": {"card_number": "4111111111111111", "expiry_date": "12/31"}}"#;
    let envelope = vault.request("POST", "/v1/envelopes", card).json();
    assert_eq!(rotate(&vault, "jwt"), 2);
    assert_eq!(rotate(&vault, "envelope"), 2);
    let set = vault.request("GET", "/.well-known/jwks.json", "").json();
    assert_eq!(set["keys"].as_array().unwrap().len(), 2, "{set}");
    let answer = vault.request_as(&jwt, "POST", "/v1/tokenize", r#"{"pan": "4111111111111111"}"#);
    assert_eq!(answer.status, 201, "{answer:?}");
    let open = serde_json::json!({ "jwt": envelope["jwt"] }).to_string();
    assert_eq!(vault.request("POST", "/v1/envelopes/open", &open).status, 200);
    assert_eq!(vault.admin("DELETE", "/v1/keys/jwt/1").code(), "key_in_use");
    let fresh = vault.request("POST", "/v1/login", "{}").json();
    let kid = |jwt: &str| jwt.split('.').next().unwrap().to_owned();
    assert_ne!(kid(&jwt), kid(fresh["access_token"].as_str().unwrap()), "signed with the new key");
}

#[test]
fn what_an_operator_asks_for_is_vetted() {
    let vault = Vault::start();
    assert_eq!(vault.admin("POST", "/v1/keys/cvv/rotate").code(), "not_found");
    assert_eq!(vault.admin("DELETE", "/v1/keys/record/9").code(), "not_found");
    assert_eq!(vault.admin("DELETE", "/v1/keys/record/x").code(), "not_found");
    assert_eq!(vault.admin("DELETE", "/v1/keys/record/1").code(), "key_in_use", "it is active");
    assert_eq!(vault.admin("GET", "/v1/rewrap").json()["state"], "idle");
    assert_eq!(vault.request("GET", "/v1/keys", "").code(), "not_found", "not on the API's socket");
    assert_eq!(vault.admin("POST", "/v1/reload").json()["issuers"], 2);
    vault.change_config(|config| config.replace("[auth]", "[auht]"));
    assert_eq!(vault.admin("POST", "/v1/reload").code(), "config_invalid");
    let status = vault.admin("GET", "/v1/status").json();
    assert_eq!((&status["ready"], &status["records"]), (&Value::Bool(true), &Value::from(0)), "{status}");
}

#[test]
fn a_key_of_another_vault_is_left_alone() {
    let vault = Vault::start();
    let others = ["--label", "vaultd-record-v2"];
    let made = vault.pkcs11_tool(&[&["--keygen", "--key-type", "AES:32"][..], &others[..]].concat());
    assert!(made.status.success(), "{made:?}");
    let answer = vault.admin("POST", "/v1/keys/record/rotate");
    assert_eq!((answer.status, answer.code().as_str()), (409, "key_in_use"), "{answer:?}");
    let objects = vault.pkcs11_tool(&["--list-objects", "--type", "secrkey"]);
    assert!(String::from_utf8_lossy(&objects.stdout).contains("vaultd-record-v2"), "{objects:?}");
    let answer = vault.request("POST", "/v1/tokenize", r#"{"pan": "4111111111111111"}"#);
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[test]
fn a_key_that_the_token_does_not_let_go_keeps_nobody_from_serving() {
    let mut vault = Vault::start_with(|config| chaotic(&config));
    rotate(&vault, "audit");
    // What a role that may not change the token is told.
    vault.trouble("C_DestroyObject error CKR_TOKEN_WRITE_PROTECTED");
    assert_eq!(vault.admin("DELETE", "/v1/keys/audit/1").code(), "hsm_unavailable");
    assert!(vault.stop().success());
    vault.restart();
    let states =
        || keys(&vault).into_iter().filter(|key| key["purpose"] == "audit").map(|key| key["state"].clone());
    assert_eq!(states().collect::<Vec<_>>(), ["destroyed", "active"]);
}

#[test]
fn a_rewrap_goes_on_if_whoever_asked_for_it_has_gone() {
    let vault = Vault::start();
    let body = r#"{"pan": "4111111111111111"}"#;
    assert_eq!(vault.request("POST", "/v1/tokenize", body).status, 201);
    for _ in 0..20 {
        rotate(&vault, "record");
        let head = format!(
            "POST /v1/rewrap HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {}\r\ncontent-length: 0\r\n\r\n",
            vault.jwt()
        );
        let mut stream = connect(&vault.path("admin.sock")).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        drop(stream);
        let asked = Instant::now();
        // That it was heard of cannot be waited for: asking again does no harm.
        while keys(&vault).iter().any(|key| key["state"] == "retired" && key["records"] == 1) {
            assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", vault.admin("POST", "/v1/rewrap"));
            std::thread::sleep(Duration::from_millis(20));
            vault.admin("POST", "/v1/rewrap");
        }
    }
}

#[test]
fn a_rewrap_that_was_cut_short_brings_what_its_first_part_left() {
    // Slow enough for a rotation between the first half and the second.
    let mut vault = Vault::start_with(|config| config + "\n[keys]\nrewrap_records_per_second = 5\n");
    let mut pans = Pans::new();
    let items: Vec<_> = pans.take(64).iter().map(|pan| serde_json::json!({ "pan": pan })).collect();
    let body = serde_json::json!({ "items": items }).to_string();
    assert_eq!(vault.request("POST", "/v1/tokenize/batch", &body).status, 200);
    let wait_for = |vault: &Vault, done: u64| {
        let is_done = || vault.admin("GET", "/v1/rewrap").json()["done"].as_u64() >= Some(done);
        until(Duration::from_secs(30), &format!("{done} records are rewrapped"), is_done);
    };
    rotate(&vault, "record");
    assert_eq!(vault.admin("POST", "/v1/rewrap").status, 202);
    wait_for(&vault, 32);
    // The first half is of an old key again, and the job is past it.
    rotate(&vault, "record");
    wait_for(&vault, 64);
    vault.kill();
    vault.change_config(|config| config.replace("per_second = 5\n", "per_second = 20\n"));
    vault.restart();
    let started = Instant::now();
    while vault.admin("GET", "/v1/rewrap").json()["state"] != "done" {
        assert!(started.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(100));
    }
    let progress = vault.admin("GET", "/v1/rewrap").json();
    assert_eq!((&progress["left"], &progress["done"]), (&Value::from(0), &Value::from(96)), "{progress}");
}

#[test]
fn a_connection_that_is_made_during_a_rotation_has_the_new_key() {
    let vault =
        Vault::start_with(|config| chaotic(&config).replace("[hsm]\n", "[hsm]\ncall_timeout_seconds = 10\n"));
    let card = r#"{"pan": "4111111111111111"}"#;
    let token = vault.request("POST", "/v1/tokenize", card).json()["token"].as_str().unwrap().to_owned();
    // A connection that is younger is mended after a pause.
    std::thread::sleep(Duration::from_millis(1_500));
    // The new key's check value is made slowly; meanwhile the connection breaks, and the login of the next one lasts
    // until the key is active.
    let script = "C_Sign latency 1500ms count=1\nC_Decrypt error CKR_SESSION_HANDLE_INVALID count=2\n\
                  C_Login latency 3000ms count=1\n";
    vault.trouble(script);
    std::thread::scope(|scope| {
        let rotation = scope.spawn(|| vault.admin("POST", "/v1/keys/holder/rotate"));
        std::thread::sleep(Duration::from_millis(500));
        let body = serde_json::json!({ "token": token }).to_string();
        assert_eq!(vault.request("POST", "/v1/detokenize", &body).status, 200, "once it is mended");
        assert_eq!(rotation.join().unwrap().status, 201);
    });
    vault.calm();
    let held = r#"{"pan": "5555555555554444", "holder": "Ada Lovelace"}"#;
    let started = Instant::now();
    loop {
        let answer = vault.request("POST", "/v1/tokenize", held);
        if answer.status == 201 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{answer:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_spent_key_that_cannot_be_rotated_is_not_tried_by_every_request() {
    let vault = Vault::start_with(|config| chaotic(&config) + "\n[keys]\nmax_encryptions = 1000\n");
    let mut pans = Pans::new();
    vault.trouble("C_GenerateKey error CKR_TOKEN_WRITE_PROTECTED");
    let mut failed = 0;
    for _ in 0..1_100 {
        let body = serde_json::json!({ "pan": pans.next_pan() }).to_string();
        failed += u32::from(vault.request("POST", "/v1/tokenize", &body).status == 503);
    }
    assert_eq!(failed, 100, "every encryption was used that may be");
    let log = vault.log();
    let early = log.matches("cannot rotate a key that nears its last encryption").count();
    assert!((1..=2).contains(&early), "{early} tries ahead of the end");
    vault.calm();
    std::thread::sleep(Duration::from_millis(1_500));
    let body = serde_json::json!({ "pan": pans.next_pan() }).to_string();
    assert_eq!(vault.request("POST", "/v1/tokenize", &body).status, 201, "as soon as a key can be made");
}

#[test]
fn a_search_that_began_before_a_rotation_finds_what_was_rewrapped_since() {
    let vault = Vault::start_with(|config| chaotic(&config).replace("[hsm]\n", "[hsm]\nsessions = 4\n"));
    let card = r#"{"pan": "4111111111111111"}"#;
    let token = vault.request("POST", "/v1/tokenize", card).json()["token"].clone();
    // The search's fingerprint under the only key there is.
    vault.trouble("C_Sign latency 2s count=1");
    std::thread::scope(|scope| {
        let search = scope.spawn(|| vault.request("POST", "/v1/tokens/search", card));
        std::thread::sleep(Duration::from_millis(500));
        rotate(&vault, "fingerprint");
        assert_eq!(rewrap(&vault)["state"], "done");
        let found = search.join().unwrap().json();
        assert_eq!(found["tokens"][0]["token"], token, "{found}");
    });
}

#[test]
fn a_jwt_that_a_reload_lets_live_longer_keeps_its_key() {
    let vault = fast_vault();
    vault.change_config(|config| {
        config
            .replace("self_max_lifetime_seconds = 1\n", "self_max_lifetime_seconds = 600\n")
            .replace("max_lifetime_seconds = 1\n", "max_lifetime_seconds = 600\n")
    });
    assert_eq!(vault.admin("POST", "/v1/reload").status, 200);
    let login = vault.request("POST", "/v1/login", "{}").json();
    assert_eq!(login["expires_in"], 600, "{login}");
    rotate(&vault, "jwt");
    // A second, the request's five and some more: what the configuration at the start allowed.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(vault.admin("DELETE", "/v1/keys/jwt/1").code(), "key_in_use");
}

#[test]
fn what_was_made_while_more_was_allowed_keeps_its_keys_after_a_restart() {
    let mut vault = Vault::start();
    let card =
        r#"{"meta_data": {"card_number": "4111111111111111", "expiry_date": "12/31"}, "expires_in": 3600}"#;
    let envelope = vault.request("POST", "/v1/envelopes", card).json();
    assert!(vault.stop().success());
    vault.change_config(|config| short_lived(&config));
    vault.restart();
    // It outlives the start that knew of the longer lifetimes.
    vault.kill();
    vault.restart();
    assert_eq!(vault.request("POST", "/v1/envelopes", card).code(), "invalid_request", "no longer allowed");
    rotate(&vault, "jwt");
    rotate(&vault, "envelope");
    // A second, the request's five and some more: what the configuration allows now.
    std::thread::sleep(Duration::from_secs(8));
    rotate(&vault, "jwt");
    let open = serde_json::json!({ "jwt": envelope["jwt"] }).to_string();
    let opened = vault.request("POST", "/v1/envelopes/open", &open);
    assert_eq!(opened.status, 200, "{opened:?}");
    for key in ["jwt", "envelope"] {
        let answer = vault.admin("DELETE", &format!("/v1/keys/{key}/1"));
        assert_eq!(answer.code(), "key_in_use", "{key}: {answer:?}");
    }
}
