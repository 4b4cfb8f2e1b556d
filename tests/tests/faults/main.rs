//! Faults of every kind while callers do everything at once, each of whom knows what it was told.
//!
//! Whatever happens: an answer is right or a documented refusal that fits the fault; what was acknowledged stays true, and is
//! in the audit log; and honest callers are served again as soon as the fault is over. `make test-faults` runs these for
//! longer, and with them the faults of HSM, audit log and keys that have tests of their own.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod clients;
mod clock;
mod framing;
mod killed;
mod limits;

use std::{
    thread,
    time::{Duration, Instant},
};

use vault_tests::{Load, Tally, Vault, until};

/// Callers at work in each of the tests.
const CALLERS: u64 = 8;
/// How soon all must be well again once a fault has ended, on a build machine that has other things to do.
const RECOVERY: Duration = Duration::from_secs(10);

/// How often a fault is repeated: `VAULT_TEST_ROUNDS`, twice unless it is set.
fn rounds() -> u32 {
    std::env::var("VAULT_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Prints what callers saw of a fault, and makes sure that nothing was wrong and only refusals with `codes` came.
fn seen(name: &str, tally: &Tally, codes: &[&str]) {
    let slowest = tally.slowest.as_millis();
    eprintln!("{name:<58} {:>6} done, refused: {:?}, slowest {slowest} ms", tally.done, tally.refused);
    tally.assert_only(name, codes);
}

/// Waits until somebody who comes anew is served.
fn is_well(vault: &Vault, load: &Load) {
    let over = Instant::now();
    loop {
        let answer = vault.request("POST", "/v1/tokenize", r#"{"pan":"4111111111111111"}"#);
        if answer.status < 300 && vault.request("GET", "/readyz", "").status == 200 {
            break;
        }
        assert!(over.elapsed() < RECOVERY, "{answer:?}");
        thread::sleep(Duration::from_millis(20));
    }
    // What was on its way may still have been refused.
    load.end_what_is_begun(RECOVERY);
    load.take();
    let over = Instant::now();
    let mut tally = Tally::default();
    while tally.done == 0 {
        assert!(over.elapsed() < RECOVERY, "nothing is done: {tally:?}");
        thread::sleep(Duration::from_millis(200));
        tally = load.take();
        tally.assert_only("afterwards", &[]);
    }
}

/// Waits until those at work have done something since the last look.
fn is_served(load: &Load) {
    until(RECOVERY, "somebody is served", || load.so_far().done > 0);
}
