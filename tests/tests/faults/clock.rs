//! A wall clock that leaps, forward and back.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use vault_tests::{AuditLog, Load, Pans, Vault, built, exchange, until};

use crate::{CALLERS, RECOVERY, is_served, rounds, seen};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
/// Where the tests begin, so that JWTs are old enough to be valid when the clock is set back.
const BEGIN: i64 = 2 * DAY;
/// So many commits are two of the sweeper's at least: what else comes by itself comes once a minute.
const SWEEPS: u64 = 3;
const AFTER_LEAP: Duration = Duration::from_millis(700);

/// The wall clock of a daemon.
struct Clock(File);

impl Clock {
    /// Starts `vault`, which is stopped, with a clock that is at [`BEGIN`].
    fn start(vault: &mut Vault) -> Self {
        let path = vault.path("clock");
        fs::write(&path, BEGIN.to_le_bytes()).unwrap();
        let preload = format!("LD_PRELOAD={}", built("libshifted_clock.so").display());
        let shift = format!("SHIFTED_CLOCK={}", path.display());
        vault.restart_through(&["env", &preload, &shift]);
        Self(File::options().write(true).open(path).unwrap())
    }

    /// Sets it to `seconds` from [`BEGIN`].
    fn leap(&self, seconds: i64) {
        self.0.write_all_at(&(BEGIN + seconds).to_le_bytes(), 0).unwrap();
    }
}

/// How often the store has written something: whenever the sweeper comes by, too.
fn commits(vault: &Vault) -> u64 {
    let page = exchange(&vault.path("admin.sock"), b"GET /metrics HTTP/1.1\r\nhost: v\r\n\r\n").body;
    let count = page.lines().find_map(|line| line.strip_prefix("vaultd_store_commit_records_count "));
    count.unwrap().parse().unwrap()
}

/// The clock's time at `seconds` from [`BEGIN`].
fn at(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + BEGIN + seconds
}

#[test]
fn nothing_hangs_and_nothing_is_lost_when_the_clock_leaps() {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    vault.change_config(|config| {
        config
            .replace("[audit]", "[audit]\ncheckpoint_seconds = 1")
            .replace("[store]", "[store]\nsweep_interval_seconds = 1")
    });
    let clock = Clock::start(&mut vault);
    let mut log = AuditLog::of(&vault);
    let load = Load::start(&vault, CALLERS);
    thread::sleep(AFTER_LEAP);
    // Of JWTs and envelopes that were made before it.
    let codes = ["expired_jwt", "invalid_jwt", "envelope_expired", "envelope_invalid"];
    for round in 0..rounds().div_ceil(2) {
        for (name, seconds) in [
            ("an hour forward", HOUR),
            ("back again", 0),
            ("an hour back", -HOUR),
            ("four days forward", 4 * DAY),
            ("five days back", -DAY),
            ("where it was", 0),
        ] {
            load.take();
            log.follow_live();
            clock.leap(seconds);
            thread::sleep(AFTER_LEAP);
            is_served(&load);
            let tally = load.take();
            assert!(tally.slowest < Duration::from_secs(5), "{name}: {:?}", tally.slowest);
            seen(&format!("the clock: {name}"), &tally, &codes);
            thread::sleep(AFTER_LEAP);
            let mut entries = log.follow_live();
            until(RECOVERY, &format!("{name}: the log goes on being signed"), || {
                entries.append(&mut log.follow_live());
                entries.iter().any(|entry| entry["type"] == "checkpoint")
            });
            let told = entries.iter().filter(|entry| entry["event"] == "clock.behind").count();
            // Four days ahead, which the first round left it, an hour makes no difference.
            let is_new = name == "five days back" || name == "back again" && round == 0;
            assert_eq!(told, usize::from(is_new), "{name}");
        }
    }
    eprintln!("{:?}", load.settle(&vault));
    assert!(!vault.log().contains("panicked"), "{}", vault.log());
    assert!(vault.stop().success());
    let verified = vault_tests::run(&["audit", "verify", vault.path("audit").to_str().unwrap()]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn what_is_over_is_not_let_in_and_what_was_used_up_does_not_come_back() {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    vault.change_config(|config| {
        config
            .replace("[auth]", "[auth]\nsingle_use_scopes = [\"tokens:read\"]\nreplay_entries = 1")
            .replace("[store]", "[store]\nsweep_interval_seconds = 1")
            + "\n[guards.subject]\npans_per_hour = 2\n"
    });
    let clock = Clock::start(&mut vault);
    let minter = vault.minter();
    let jwt = |subject: &str, from: i64| {
        minter.mint(&json!({ "sub": subject, "iat": at(from), "exp": at(from + 600) }))
    };
    let tokenize = |body: Value| vault.request("POST", "/v1/tokenize", &body.to_string()).json();
    let pans = Pans::new().take(4);
    let brief = tokenize(json!({ "pan": pans[0], "expires_in": 60 }))["token"].clone();
    let tokens: Vec<_> =
        pans[1..].iter().map(|pan| tokenize(json!({ "pan": pan }))["token"].clone()).collect();
    let detokenize = |jwt: &str, token: &Value| {
        let answer = vault.request_as(jwt, "POST", "/v1/detokenize", &json!({ "token": token }).to_string());
        if answer.status == 200 { "ok".to_owned() } else { answer.code() }
    };
    let read = |jwt: &str| {
        let answer = vault.request_as(jwt, "GET", &format!("/v1/tokens/{}", tokens[0].as_str().unwrap()), "");
        if answer.status == 200 { "ok".to_owned() } else { answer.code() }
    };

    // Lifetimes: those of JWTs that are remembered as verified, too.
    let (now, later) = (jwt("a", 0), jwt("b", HOUR));
    assert_eq!(detokenize(&now, &brief), "ok");
    assert_eq!(detokenize(&later, &tokens[0]), "invalid_jwt", "of a time that has not come");
    clock.leap(61);
    assert_eq!(detokenize(&now, &brief), "token_expired");
    clock.leap(632);
    assert_eq!(detokenize(&now, &tokens[0]), "expired_jwt");
    clock.leap(HOUR);
    assert_eq!(detokenize(&later, &tokens[0]), "ok");

    // Guards: time that does not pass gives nothing, time that does gives what it would.
    clock.leap(0);
    let greedy = |from| jwt("greedy", from);
    assert_eq!([0, 1].map(|card| detokenize(&greedy(0), &tokens[card])), ["ok", "ok"]);
    for back in [0, -60, -HOUR, -DAY] {
        clock.leap(back);
        assert_eq!(detokenize(&greedy(back), &tokens[2]), "rate_limited", "set back by {back} s");
    }
    clock.leap(2 * HOUR);
    assert_eq!(detokenize(&greedy(2 * HOUR), &tokens[2]), "ok");

    // What was used once.
    clock.leap(0);
    let once = jwt("once", 0);
    assert_eq!([read(&once), read(&once)], ["ok", "replayed_jwt"]);
    clock.leap(-20);
    assert_eq!(read(&once), "replayed_jwt");
    clock.leap(300);
    assert_eq!(read(&once), "replayed_jwt");
    clock.leap(HOUR);
    assert_eq!(read(&once), "expired_jwt");

    // Nor does a later use take its place.
    read(&jwt("late", HOUR));
    clock.leap(0);
    assert_eq!(read(&once), "replayed_jwt");

    // The sweeper does not believe at once that so much is over, nor does whoever brings a card again.
    clock.leap(DAY);
    let again = tokenize(json!({ "pan": pans[0], "expires_in": 60 }));
    assert_eq!(again["created"], true, "{again}");
    let before = commits(&vault);
    until(RECOVERY * 2, "the sweeper has come by", || commits(&vault) >= before + SWEEPS);
    clock.leap(0);
    assert_eq!(read(&once), "replayed_jwt");
    assert_eq!(detokenize(&now, &brief), "ok");
}

#[test]
fn a_key_that_may_be_needed_is_not_destroyed_because_the_clock_leaps() {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    let clock = Clock::start(&mut vault);
    let minter = vault.minter();
    let jwt = |from: i64| {
        let scope = "envelopes:seal envelopes:open keys:rotate keys:destroy";
        minter.mint(&json!({ "sub": "operator", "scope": scope, "iat": at(from), "exp": at(from + 600) }))
    };
    let card = json!({ "meta_data": { "card_number": "4111111111111111", "expiry_date": "12/31" } });
    let envelope = vault.request_as(&jwt(0), "POST", "/v1/envelopes", &card.to_string()).json();
    let rotated = vault.admin_as(&jwt(0), "POST", "/v1/keys/envelope/rotate", "");
    assert_eq!(rotated.status, 201, "{rotated:?}");
    // Envelopes live for a day at most.
    for seconds in [2 * DAY, 0] {
        clock.leap(seconds);
        let answer = vault.admin_as(&jwt(seconds), "DELETE", "/v1/keys/envelope/1", "");
        assert_eq!(answer.code(), "key_in_use", "{seconds} s: {answer:?}");
        assert!(!answer.body.contains(" 0 more seconds"), "{seconds} s: {answer:?}");
    }
    let open = json!({ "jwt": envelope["jwt"] }).to_string();
    assert_eq!(vault.request_as(&jwt(0), "POST", "/v1/envelopes/open", &open).status, 200);
}
