//! The guards over a real store: callers that race, and restarts of both kinds.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{collections::HashSet, path::Path};

use futures_util::{FutureExt, future::join_all};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vaultd::{
    guards::{Admitted, Caller, GuardRules, Guards, Refused, RevealLimits},
    store::Store,
};

const THIEF: Caller<'_> = Caller { issuer: "idp", subject: "thief", tenant: "shop", uid: 7 };
const OTHER: Caller<'_> = Caller { issuer: "idp", subject: "other", tenant: "shop", uid: 7 };

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn new_store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), [7; 16], 1 << 20, 256).unwrap();
    (dir, store)
}

fn subject(limits: RevealLimits) -> GuardRules {
    GuardRules { subject: limits, ..GuardRules::default() }
}

fn hourly(limit: usize) -> GuardRules {
    subject(RevealLimits { pans_per_hour: Some(limit), ..RevealLimits::default() })
}

async fn take(guards: &Guards, caller: &Caller<'_>, number: usize) -> Result<Admitted, Refused> {
    guards.admit(caller, &[guards.card("shop", &number.to_be_bytes())], || {}).await
}

/// How many of the cards `from..to` the thief gets.
async fn takes(guards: &Guards, from: usize, to: usize) -> usize {
    let asked = join_all((from..to).map(|number| take(guards, &THIEF, number))).await;
    asked.iter().filter(|asked| asked.is_ok()).count()
}

/// A copy of the store as a crash at this moment would leave it.
fn crashed(dir: &Path) -> (TempDir, Store) {
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.join("vault.redb"), copy.path().join("vault.redb")).unwrap();
    let store = Store::open(copy.path(), 1 << 20, 256).unwrap();
    (copy, store)
}

#[test]
fn connections_that_race_get_the_limit_and_no_more() {
    let (_dir, store) = new_store();
    let guards = Guards::open(hourly(500), store).unwrap();
    runtime().block_on(async {
        let connections = (0..64).map(|connection| {
            let guards = guards.clone();
            tokio::spawn(async move { takes(&guards, connection * 100, connection * 100 + 100).await })
        });
        let taken: usize = join_all(connections).await.into_iter().map(Result::unwrap).sum();
        assert_eq!(taken, 500);
        assert!(take(&guards, &OTHER, 0).await.is_ok(), "somebody else has a count of its own");
    });
}

#[test]
fn a_clean_restart_forgets_nothing() {
    let (dir, store) = new_store();
    let guards = Guards::open(hourly(100), store.clone()).unwrap();
    runtime().block_on(async {
        assert_eq!(takes(&guards, 0, 73).await, 73);
        guards.close().await.unwrap();
        assert!(take(&guards, &THIEF, 99).await.is_err(), "nothing is admitted afterwards");
    });
    store.close();
    drop((guards, store));
    let store = Store::open(dir.path(), 1 << 20, 256).unwrap();
    let guards = Guards::open(hourly(100), store).unwrap();
    runtime().block_on(async {
        assert_eq!(takes(&guards, 0, 73).await, 73, "seen before: free");
        assert_eq!(takes(&guards, 73, 300).await, 27);
    });
}

#[test]
fn crashes_give_nothing_back() {
    const LIMIT: usize = 200;
    let (mut dir, mut store) = new_store();
    let (mut seen, mut next) = (HashSet::new(), 0);
    for crash in 0..12 {
        let guards = Guards::open(hourly(LIMIT), store.clone()).unwrap();
        runtime().block_on(async {
            for number in next..next + 17 {
                if take(&guards, &THIEF, number).await.is_ok() {
                    seen.insert(number);
                }
            }
        });
        next += 17;
        assert!(seen.len() <= LIMIT);
        let lost = crash * LIMIT / 20;
        assert!(seen.len() + lost >= next.min(LIMIT), "crash {crash}: {} of {next}", seen.len());
        // The old one stays open, as it was: what it would write at its end is not in the copy.
        (dir, store) = crashed(dir.path());
    }
    let guards = Guards::open(hourly(LIMIT), store).unwrap();
    let rest = runtime().block_on(takes(&guards, next, next + 2 * LIMIT));
    assert!(seen.len() + rest <= LIMIT);
    drop(dir);
}

#[test]
fn a_batch_gets_what_fits_and_a_full_window_refuses_the_whole() {
    let (_dir, store) = new_store();
    let guards = Guards::open(hourly(10), store).unwrap();
    let cards: Vec<_> = (0..15_usize).map(|number| guards.card("shop", &number.to_be_bytes())).collect();
    runtime().block_on(async {
        let admitted = guards.admit(&THIEF, &cards, || {}).await.unwrap();
        assert_eq!(admitted.granted, [[true; 5], [true; 5], [false; 5]].concat());
        let quota = admitted.quota.unwrap();
        assert_eq!((quota.policy, quota.left), ("subject-hour", 0));
        assert!((3_590..=3_601).contains(&quota.more_in_s), "{quota:?}");
        assert!(guards.admit(&THIEF, &cards[..10], || {}).await.is_ok(), "the same cards again are free");
        assert!(matches!(guards.admit(&THIEF, &cards[10..], || {}).await, Err(Refused::Limit(_))));
    });
}

#[test]
fn every_scope_counts_and_a_refusal_costs_the_others_nothing() {
    let (_dir, store) = new_store();
    let limit = |pans| RevealLimits { pans_per_day: Some(pans), ..RevealLimits::default() };
    let rules = GuardRules { subject: limit(4), tenant: limit(6), uid: limit(100) };
    let guards = Guards::open(rules, store).unwrap();
    runtime().block_on(async {
        assert_eq!(takes(&guards, 0, 10).await, 4);
        let refused = take(&guards, &THIEF, 20).await.unwrap_err();
        assert!(matches!(refused, Refused::Limit(quota) if quota.policy == "subject-day"), "{refused:?}");
        for number in 10..12 {
            assert!(take(&guards, &OTHER, number).await.is_ok());
        }
        let refused = take(&guards, &OTHER, 12).await.unwrap_err();
        assert!(matches!(refused, Refused::Limit(quota) if quota.policy == "tenant-day"), "{refused:?}");
        let elsewhere = Caller { tenant: "bank", ..OTHER };
        assert!(take(&guards, &elsewhere, 13).await.is_ok(), "a refusal was not counted");
    });
}

#[test]
fn requests_a_second_and_the_size_of_batches_are_limited() {
    let (_dir, store) = new_store();
    let rules = subject(RevealLimits {
        requests_per_second: Some(3),
        batch_items: Some(2),
        ..RevealLimits::default()
    });
    let guards = Guards::open(rules, store).unwrap();
    runtime().block_on(async {
        let three: Vec<_> = (0..3_u8).map(|number| guards.card("shop", &[number])).collect();
        assert!(
            matches!(guards.admit(&THIEF, &three, || {}).await, Err(Refused::Batch(quota)) if quota.left == 2)
        );
        for _ in 0..3 {
            assert!(guards.admit(&THIEF, &three[..2], || {}).await.is_ok());
        }
        let refused = guards.admit(&THIEF, &three[..1], || {}).await.unwrap_err();
        assert!(matches!(refused, Refused::Limit(quota) if quota.policy == "subject-second"));
    });
    assert_eq!(guards.policy(), "\"subject-second\";q=3;w=1, \"subject-batch\";q=2");
}

#[test]
fn far_over_the_line_is_locked_across_a_restart_until_somebody_unlocks() {
    let (dir, store) = new_store();
    let rules = subject(RevealLimits {
        pans_per_hour: Some(5),
        lock_at_pans_per_hour: Some(8),
        ..RevealLimits::default()
    });
    let guards = Guards::open(rules.clone(), store.clone()).unwrap();
    runtime().block_on(async {
        for number in 0..7 {
            assert_eq!(take(&guards, &THIEF, number).await.is_ok(), number < 5);
            assert!(!guards.is_locked("idp", "thief"));
        }
        assert_eq!(take(&guards, &THIEF, 7).await, Err(Refused::Locked));
    });
    assert!(guards.is_locked("idp", "thief") && !guards.is_locked("idp", "other"));

    let (_copy, store) = crashed(dir.path());
    let guards = Guards::open(rules, store).unwrap();
    let locks = guards.locks();
    assert_eq!((locks.len(), locks[0].subject.as_str(), locks[0].tenant.as_str()), (1, "thief", "shop"));
    runtime().block_on(async {
        assert!(guards.unlock("idp", "thief").await.unwrap());
        assert!(!guards.unlock("idp", "thief").await.unwrap());
        assert!(!guards.is_locked("idp", "thief"));
        let refused = take(&guards, &THIEF, 50).await;
        assert!(matches!(refused, Err(Refused::Limit(_))), "what it has taken still counts: {refused:?}");
    });
}

#[test]
fn whoever_hangs_up_while_it_is_locked_is_told_of_all_the_same() {
    let (_dir, store) = new_store();
    let rules = subject(RevealLimits {
        pans_per_hour: Some(1),
        lock_at_pans_per_hour: Some(2),
        ..RevealLimits::default()
    });
    let guards = Guards::open(rules, store).unwrap();
    runtime().block_on(async {
        assert!(take(&guards, &THIEF, 0).await.is_ok());
        let cards = [guards.card("shop", b"one too many")];
        let mut told = false;
        assert!(guards.admit(&THIEF, &cards, || told = true).now_or_never().is_none());
        assert!(told && guards.is_locked("idp", "thief"));
    });
}

#[test]
fn cards_that_the_hour_refuses_count_for_the_day() {
    let (_dir, store) = new_store();
    let rules = GuardRules {
        tenant: RevealLimits { pans_per_hour: Some(7), ..RevealLimits::default() },
        ..subject(RevealLimits {
            pans_per_hour: Some(5),
            pans_per_day: Some(100),
            lock_at_pans_per_day: Some(8),
            ..RevealLimits::default()
        })
    };
    let guards = Guards::open(rules, store).unwrap();
    runtime().block_on(async {
        for number in 0..7 {
            assert_eq!(take(&guards, &THIEF, number).await.is_ok(), number < 5);
        }
        assert_eq!(take(&guards, &THIEF, 7).await, Err(Refused::Locked));
        // What the tenant has no room for is nothing that the subject did.
        for number in 10..40 {
            assert_eq!(take(&guards, &OTHER, number).await.is_ok(), number < 12);
        }
        assert!(!guards.is_locked("idp", "other"));
    });
}

#[test]
fn what_is_not_limited_any_more_leaves_no_rows() {
    let (dir, store) = new_store();
    let guards = Guards::open(hourly(50), store).unwrap();
    assert_eq!(runtime().block_on(takes(&guards, 0, 20)), 20);
    let (_copy, store) = crashed(dir.path());
    assert!(!store.window_rows().unwrap().is_empty());
    Guards::open(GuardRules::default(), store.clone()).unwrap();
    assert_eq!(store.window_rows().unwrap(), []);
}

#[test]
fn the_wait_is_until_there_is_room_in_every_window() {
    let (_dir, store) = new_store();
    let limits = RevealLimits { pans_per_hour: Some(1), pans_per_day: Some(1), ..RevealLimits::default() };
    let guards = Guards::open(subject(limits), store).unwrap();
    runtime().block_on(async {
        assert!(take(&guards, &THIEF, 1).await.is_ok());
        let Err(Refused::Limit(quota)) = take(&guards, &THIEF, 2).await else { panic!("it is refused") };
        assert!(quota.policy == "subject-day" && quota.more_in_s > 3_600, "{quota:?}");
    });
}
