//! Nothing that was acknowledged is lost, and one card has one token, whatever happens.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{HashMap, HashSet},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use vault_client::{RetryPolicy, TokenizeRequest, VaultClient};
use vault_tests::{Pans, Vault};

const CONNECTIONS: usize = 64;

/// Tokenizes `work` from 64 connections at once, and says which tokens were acknowledged.
async fn tokenize_all(
    client: &VaultClient,
    work: Vec<String>,
    stop: &Arc<AtomicBool>,
) -> Vec<(String, String)> {
    let work = Arc::new(Mutex::new(work));
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (client, work, stop) = (client.clone(), Arc::clone(&work), Arc::clone(stop));
            tokio::spawn(async move {
                let mut done = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let Some(pan) = work.lock().unwrap().pop() else { break };
                    if let Ok(answer) = client.tokenize(&TokenizeRequest::new(pan.as_str())).await {
                        done.push((pan, answer.token));
                    }
                }
                done
            })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.extend(task.await.unwrap());
    }
    done
}

fn impatient(vault: &Vault) -> VaultClient {
    let once = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    vault.client_builder().retry(once).max_idle_connections(CONNECTIONS).build().unwrap()
}

async fn assert_all_there(vault: &Vault, acknowledged: &[(String, String)]) {
    for chunk in acknowledged.chunks(1_000) {
        let tokens: Vec<_> = chunk.iter().map(|(_, token)| token.as_str()).collect();
        let cards = vault.client().detokenize_batch(&tokens).await.unwrap();
        for ((pan, token), card) in chunk.iter().zip(cards) {
            assert_eq!(card.unwrap().pan.expose(), pan, "{token}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_for_five_thousand_cards_give_five_thousand_tokens() {
    let vault = Vault::start();
    let pans = Pans::new().take(5_000);
    // Each card's two requests stand side by side, so that they race.
    let work: Vec<_> = pans.iter().flat_map(|pan| [pan.clone(), pan.clone()]).collect();
    let done = tokenize_all(&impatient(&vault), work, &Arc::default()).await;
    assert_eq!(done.len(), 10_000);
    let mut token_of = HashMap::new();
    for (pan, token) in &done {
        assert_eq!(*token_of.entry(pan).or_insert(token), token, "two tokens for one card");
    }
    assert_eq!(token_of.values().collect::<HashSet<_>>().len(), 5_000);
    assert_all_there(&vault, &done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let mut vault = Vault::start();
    let mut pans = Pans::new();
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        let (client, stop) = (impatient(&vault), Arc::new(AtomicBool::new(false)));
        let work = pans.take(10_000);
        let load = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move { tokenize_all(&client, work, &stop).await }
        });
        tokio::time::sleep(Duration::from_millis(700)).await;
        vault.kill();
        stop.store(true, Ordering::Relaxed);
        let done = load.await.unwrap();
        assert!(!done.is_empty() && done.len() < 10_000, "{} of 10,000: killed in the middle", done.len());
        acknowledged.extend(done);
        vault.restart();
        assert_all_there(&vault, &acknowledged).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_answers_what_it_took_and_refuses_the_rest() {
    let mut vault = Vault::start();
    let (client, stop) = (impatient(&vault), Arc::new(AtomicBool::new(false)));
    let work = Pans::new().take(20_000);
    let load = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move { tokenize_all(&client, work, &stop).await }
    });
    tokio::time::sleep(Duration::from_millis(700)).await;
    let status = vault.stop();
    stop.store(true, Ordering::Relaxed);
    assert_eq!(status.code(), Some(0), "it ends cleanly");
    assert!(UnixStream::connect(vault.socket()).is_err(), "nobody listens any more");
    let acknowledged = load.await.unwrap();
    assert!(!acknowledged.is_empty() && acknowledged.len() < 20_000, "stopped in the middle");
    vault.restart();
    assert_all_there(&vault, &acknowledged).await;
}
