//! What an operator does with keys, on the admin socket.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;
use vault_client::{TokenizeRequest, VaultClient};

use crate::{Vault, until};

/// Every purpose of keys; records depend on the first three.
pub const PURPOSES: [&str; 6] = ["record", "fingerprint", "holder", "envelope", "jwt", "audit"];
/// A job that does not end in this time hangs.
const PATIENCE: Duration = Duration::from_mins(10);

/// `config` with JWTs and envelopes that live for a second.
pub fn short_lived(config: &str) -> String {
    config
        .replace("[auth]\n", "[auth]\nself_max_lifetime_seconds = 1\nleeway_seconds = 0\n")
        .replace("max_lifetime_seconds = 3600", "max_lifetime_seconds = 1")
        .replace(
            "[tokens]\n",
            "[envelopes]\nmax_expires_in = 1\n[limits]\nrequest_timeout_seconds = 5\n[tokens]\n",
        )
}

/// A vault whose JWTs and envelopes live for a second, and which rewraps as fast as it can.
pub fn fast_vault() -> Vault {
    fast_vault_with(|config| config)
}

/// The same with more that `change` has changed.
pub fn fast_vault_with(change: impl FnOnce(String) -> String) -> Vault {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    vault.change_config(|config| {
        let fast = "[keys]\nrewrap_records_per_second = 20000\n[tokens]\n";
        change(short_lived(&config).replace("[tokens]\n", fast))
    });
    // The store remembers that more was allowed; one that is new does not.
    for dir in ["store", "audit"] {
        fs::remove_dir_all(vault.path(dir)).unwrap();
    }
    let init = vault.run("init");
    assert!(init.status.success(), "{init:?}");
    vault.restart();
    vault
}

/// Rotates the key of `purpose` and says which version is the new one.
pub fn rotate(vault: &Vault, purpose: &str) -> u64 {
    let active = || {
        let mut keys = keys(vault).into_iter();
        keys.find(|key| key["purpose"] == purpose && key["state"] == "active")
            .map(|key| key["version"].clone())
    };
    let before = active();
    let answer = vault.admin("POST", &format!("/v1/keys/{purpose}/rotate"));
    if answer.status != 503 {
        assert_eq!(answer.status, 201, "{answer:?}");
        return answer.json()["version"].as_u64().unwrap();
    }
    // A key may take longer than a request may last, and is made to the end all the same.
    assert_eq!(answer.code(), "store_unavailable", "{answer:?}");
    until(Duration::from_mins(1), "a rotation that was begun is ended", || active() != before);
    active().unwrap().as_u64().unwrap()
}

/// Every key there is or was.
pub fn keys(vault: &Vault) -> Vec<Value> {
    let keys = vault.admin("GET", "/v1/keys").json();
    keys["keys"].as_array().unwrap().clone()
}

/// Rewraps everything and says how the job ended.
pub fn rewrap(vault: &Vault) -> Value {
    assert_eq!(vault.admin("POST", "/v1/rewrap").status, 202);
    let started = Instant::now();
    loop {
        let progress = vault.admin("GET", "/v1/rewrap").json();
        if !["running", "waiting"].contains(&progress["state"].as_str().unwrap()) {
            return progress;
        }
        assert!(started.elapsed() < PATIENCE, "{progress}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Destroys every retired key, once what may still need it is over.
pub fn destroy_retired(vault: &Vault) {
    for key in keys(vault) {
        if key["state"] == "retired" {
            let path = format!("/v1/keys/{}/{}", key["purpose"].as_str().unwrap(), key["version"]);
            let started = Instant::now();
            loop {
                let answer = vault.admin("DELETE", &path);
                if answer.status == 200 {
                    assert_eq!(answer.json()["state"], "destroyed");
                    break;
                }
                assert_eq!(answer.code(), "key_in_use", "{answer:?}");
                assert!(started.elapsed() < Duration::from_secs(30), "{answer:?}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// Tokenizes `pans`, and says which token each has.
pub async fn fill(client: &VaultClient, pans: &[String]) -> Vec<(String, String)> {
    let mut cards = Vec::with_capacity(pans.len());
    for chunk in pans.chunks(1_000) {
        let requests: Vec<_> = chunk.iter().map(|pan| TokenizeRequest::new(pan.as_str())).collect();
        let answers = client.tokenize_batch(&requests).await.unwrap();
        cards.extend(chunk.iter().cloned().zip(answers.into_iter().map(|answer| answer.unwrap().token)));
    }
    cards
}

/// Every token gives its card.
pub async fn assert_all_there(client: &VaultClient, cards: &[(String, String)]) {
    for chunk in cards.chunks(1_000) {
        let tokens: Vec<_> = chunk.iter().map(|(_, token)| token.as_str()).collect();
        for ((pan, token), card) in chunk.iter().zip(client.detokenize_batch(&tokens).await.unwrap()) {
            assert_eq!(card.unwrap().pan.expose(), pan, "{token}");
        }
    }
}
