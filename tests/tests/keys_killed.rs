//! `kill -9` at any moment of a rotation, a rewrap, a destruction, or a start.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    time::Duration,
};

use vault_tests::{
    PURPOSES, Pans, Vault, assert_all_there, connect, destroy_retired, fast_vault, fill, keys, rewrap,
    rotate, seeded_random,
};

/// What the daemon is doing when it is killed.
fn trouble(vault: &Vault, random: &mut fastrand::Rng) {
    // Making RSA keys takes a second each: mostly the others.
    let purpose = if random.u8(..8) == 0 { 3 + random.usize(..3) } else { random.usize(..3) };
    let (socket, jwt) = (vault.path("admin.sock"), vault.jwt());
    // The daemon may die in the middle of this.
    let quietly = |method: &str, path: &str| {
        let Ok(mut stream) = connect(&socket) else { return };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {jwt}\r\ncontent-length: 0\r\n\
             connection: close\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.read_to_end(&mut Vec::new()));
    };
    quietly("POST", &format!("/v1/keys/{}/rotate", PURPOSES[purpose]));
    quietly("POST", "/v1/rewrap");
    for version in 1..20 {
        quietly("DELETE", &format!("/v1/keys/{}/{version}", PURPOSES[purpose]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_costs_neither_record_nor_key() {
    let kills = std::env::var("VAULT_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let mut random = seeded_random();
    let mut pans = Pans::new();
    let mut vault = fast_vault();
    let mut tokens: HashMap<String, String> =
        fill(&vault.client(), &pans.take(400)).await.into_iter().collect();
    assert!(vault.stop().success());
    // Slow enough to be killed in the middle.
    vault.change_config(|config| config.replace("per_second = 20000", "per_second = 4000"));
    for kill in 0..kills {
        if random.bool() {
            // In the middle of what a start finishes.
            vault.start_and_kill(|| std::thread::sleep(Duration::from_millis(random.u64(..300))));
        }
        vault.restart();
        let client = vault.client();
        let cards: Vec<_> = tokens.iter().map(|(pan, token)| (pan.clone(), token.clone())).collect();
        assert_all_there(&client, &cards).await;
        // One of the old cards and some new ones, whose answers count from when they are heard.
        let mut work = pans.take(3);
        work.push(cards[random.usize(..cards.len())].0.clone());
        for (pan, token) in fill(&client, &work).await {
            let known = tokens.entry(pan).or_insert_with(|| token.clone());
            assert_eq!(*known, token, "after {kill} kills: the same card, the same token");
        }
        let mut its_random = random.fork();
        let moment = Duration::from_millis(random.u64(..200));
        std::thread::scope(|scope| {
            scope.spawn(|| trouble(&vault, &mut its_random));
            std::thread::sleep(moment);
            vault.signal("KILL");
        });
        vault.wait();
        let checked = vault.run_with(&["check", "--deep", "--quick"]);
        let report = String::from_utf8_lossy(&checked.stdout);
        // A key that was being made or removed is not finished before the next start.
        assert!(checked.status.success(), "after {kill} kills: {report}");
        assert!(report.contains("each opens, and indexes and census agree"), "{report}");
    }
    eprintln!("{kills} kills, {} cards", tokens.len());
    vault.restart();
    let progress = tokio::task::block_in_place(|| {
        for purpose in &PURPOSES[..3] {
            rotate(&vault, purpose);
        }
        rewrap(&vault)
    });
    assert_eq!(progress["state"], "done", "{progress}");
    tokio::task::block_in_place(|| destroy_retired(&vault));
    let cards: Vec<_> = tokens.into_iter().collect();
    assert_all_there(&vault.client(), &cards).await;
    let pending = keys(&vault).iter().filter(|key| key["state"] == "pending").count();
    assert_eq!(pending, 0, "every rotation was finished or given up");
    assert!(vault.stop().success());
    assert!(vault.run_with(&["check", "--deep", "--quick"]).status.success());
}
