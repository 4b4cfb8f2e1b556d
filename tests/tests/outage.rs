//! The HSM fails in every way it can while everybody is at work, and heals without a restart.
//!
//! Whatever happens, a request is answered rightly or with 503, in bounded time, and the daemon is alive. Each test
//! prints what it saw.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use vault_tests::{Caller, Load, Pulse, Refusal, Vault, chaotic, seeded_random, until};

/// How long a fault lasts, if it is not made to hang.
const FAULT: Duration = Duration::from_millis(200);
/// How soon all must be well again once a fault has ended. The figure.
const RECOVERY: Duration = Duration::from_secs(2);
const CALLERS: u64 = 16;
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// What does not come back in this time never does.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a busy build machine may add to an answer.
const SLACK: Duration = Duration::from_secs(2);
/// What a fault of the HSM may be answered with.
const FITTING: [&str; 2] = ["hsm_unavailable", "overloaded"];
/// What took longer than it may: no fault here excuses it.
const LATE: [&str; 2] = ["store_unavailable", "audit_unavailable"];
/// How long nothing at all has to have happened on this host for a fault to be repeated, and how often it is.
const STANDSTILL: Duration = Duration::from_millis(300);
const MOST_REPEATS: u32 = 5;
/// How soon a fault has to trouble somebody.
const NOTICED: Duration = Duration::from_secs(10);

/// One at a time: recovery is timed.
static ALONE: Mutex<()> = Mutex::new(());

/// A vault under load, and what was seen of it.
struct Outage {
    // Before the vault, so that they end before it does.
    load: Load,
    inspector: Caller,
    pulse: Pulse,
    vault: Vault,
    _alone: MutexGuard<'static, ()>,
}

impl Outage {
    fn new() -> Self {
        Self::with("")
    }

    /// With more settings of the HSM.
    fn with(settings: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let vault = Vault::start_with(|config| {
            let hsm =
                format!("[hsm]\nsessions = 4\ncall_timeout_seconds = {}\n{settings}", CALL_TIMEOUT.as_secs());
            let limits = format!("[limits]\nrequest_timeout_seconds = {}\n\n", REQUEST_TIMEOUT.as_secs());
            limits + &chaotic(&config).replace("[hsm]", &hsm)
        });
        let load = Load::start(&vault, CALLERS);
        let mut inspector = Caller::new(&vault, seeded_random());
        inspector.everything().unwrap();
        Self { load, inspector, pulse: Pulse::start(), vault, _alone: alone }
    }

    /// Puts the faults in `script` into force for `time`.
    fn suffer(&mut self, name: &str, script: &str, time: Duration) {
        self.during(name, u64::MAX, |vault, _| {
            vault.trouble(script);
            thread::sleep(time);
        });
    }

    /// Does `trouble`, which ends in a vault that could work again and of which at most so many may hear, and checks what
    /// callers saw of it. Where it came too late and this host stood still meanwhile, the same is done again.
    fn during(&mut self, name: &str, most_refused: u64, trouble: impl Fn(&Vault, &Load)) {
        let mut repeats = 0;
        loop {
            self.pulse.longest_gap();
            let late = match self.attempt(name, most_refused, &trouble) {
                Ok(()) => return,
                Err(late) => late,
            };
            let gap = self.pulse.longest_gap();
            assert!(gap > STANDSTILL && repeats < MOST_REPEATS, "{late}; {gap:?} without a beat");
            eprintln!("{late}; but nothing happened here for {gap:?}: once more");
            repeats += 1;
            self.recover(name, PATIENCE).unwrap();
        }
    }

    /// Does `trouble` once. What is wrong whenever it comes fails the test at once, what came too late is said.
    fn attempt(
        &mut self,
        name: &str,
        most_refused: u64,
        trouble: impl Fn(&Vault, &Load),
    ) -> Result<(), String> {
        self.load.take();
        trouble(&self.vault, &self.load);
        self.vault.calm();
        let back = self.recover(name, RECOVERY);
        let tally = self.load.take();
        tally.assert_only(name, &[FITTING, LATE].concat());
        let back = back?;
        let row = format!(
            "{name:<58} {:>6} done, 503: {:<32} slowest {:>5} ms, back in {:>5} ms",
            tally.done,
            format!("{:?}", tally.refused),
            tally.slowest.as_millis(),
            back.as_millis()
        );
        eprintln!("{row}");
        let in_time = back <= RECOVERY
            && tally.slowest < REQUEST_TIMEOUT + SLACK
            && !LATE.iter().any(|code| tally.refused.contains_key(*code))
            && tally.refused.values().sum::<u64>() <= most_refused;
        if in_time { Ok(()) } else { Err(format!("too late, or too many: {row}")) }
    }

    /// Waits until everything is served.
    fn recover(&mut self, name: &str, patience: Duration) -> Result<Duration, String> {
        let over = Instant::now();
        while let Err(refusal) = self.inspector.everything() {
            if over.elapsed() >= patience {
                return Err(format!("{name}: still {refusal:?} after {:?}", over.elapsed()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(over.elapsed())
    }

    /// Nothing that anybody was told has become untrue.
    fn end(self) {
        let settled = self.load.settle(&self.vault);
        assert!(settled.living > 0 && settled.gone > 0);
        eprintln!("{settled:?}");
    }
}

/// The functions that serve requests, and those that are called only while the connection is made anew.
const SERVING: [&str; 7] =
    ["C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_SignInit", "C_Sign", "C_GenerateRandom"];
const MENDING: [&str; 4] = ["C_OpenSession", "C_Login", "C_FindObjects", "C_GetSlotList"];

/// What each class of error asks for, and a return value of that class.
const CLASSES: [(&str, &str); 5] = [
    ("a session", "CKR_SESSION_HANDLE_INVALID"),
    ("a login", "CKR_USER_NOT_LOGGED_IN"),
    ("keys", "CKR_KEY_HANDLE_INVALID"),
    ("the module", "CKR_GENERAL_ERROR"),
    ("nothing", "CKR_DATA_INVALID"),
];

#[test]
fn each_class_of_error_on_each_function() {
    let mut outage = Outage::new();
    for (class, value) in CLASSES {
        for function in SERVING {
            let script = format!("{function} error {value}");
            let troubled = format!("{script}: somebody is troubled");
            outage.during(&format!("asks for {class}: {script}"), u64::MAX, |vault, load| {
                vault.trouble(&script);
                thread::sleep(FAULT);
                until(NOTICED, &troubled, || !load.so_far().refused.is_empty());
            });
        }
        for function in MENDING {
            let script = format!("C_Encrypt lose-sessions count=1\n{function} error {value}");
            outage.suffer(&format!("asks for {class}: {function} error {value}"), &script, FAULT);
        }
    }
    outage.end();
}

#[test]
fn what_is_lost_once_is_mended_before_callers_know() {
    let mut outage = Outage::new();
    for (function, fault) in [
        ("C_Encrypt", "lose-sessions"),
        ("C_GenerateRandom", "lose-sessions"),
        ("C_Decrypt", "lose-login"),
        ("C_Sign", "lose-login"),
        ("C_EncryptInit", "stale-handles"),
        ("C_Sign", "stale-handles"),
        ("C_Decrypt", "error CKR_DEVICE_ERROR"),
        ("C_Sign", "error CKR_SESSION_CLOSED"),
    ] {
        // A connection that has lasted is mended without a pause.
        thread::sleep(Duration::from_secs(1));
        let script = format!("{function} {fault} count=1");
        // None as a rule. On a slow machine those that were under way may have waited too long.
        outage.during(&script, CALLERS, |vault, _| {
            vault.trouble(&script);
            thread::sleep(FAULT);
        });
    }
    outage.end();
}

#[test]
fn faults_that_come_and_go() {
    let mut outage = Outage::new();
    for script in [
        "* error CKR_DEVICE_ERROR rate=0.1",
        "C_Decrypt error CKR_GENERAL_ERROR rate=0.5",
        "C_Decrypt error CKR_ENCRYPTED_DATA_INVALID rate=0.5",
        "C_DecryptInit error CKR_GENERAL_ERROR rate=0.5",
        "* lose-sessions rate=0.02",
        "* lose-login rate=0.02",
        "* stale-handles rate=0.02",
        "C_Encrypt wrong-length -1",
        "C_Encrypt wrong-length +1",
        "C_Decrypt wrong-length -1",
        "C_Decrypt wrong-length +1",
        "C_Sign wrong-length -1",
        "C_Sign wrong-length +1",
        "* latency 5ms",
        "C_Sign error CKR_DEVICE_REMOVED\nC_Finalize error CKR_FUNCTION_FAILED",
        "C_Sign error CKR_CRYPTOKI_NOT_INITIALIZED\nC_Initialize error CKR_GENERAL_ERROR",
        "C_Sign error CKR_DEVICE_ERROR\nC_CopyObject error CKR_DEVICE_MEMORY",
        "C_Sign error 0x80000001",
    ] {
        outage.suffer(&script.replace('\n', "; "), script, FAULT);
    }
    outage.end();
}

#[test]
fn calls_that_hang_are_given_up() {
    let mut outage = Outage::with("max_written_off_threads = 3\n");
    for script in [
        "C_Sign hang",
        "C_EncryptInit hang",
        "C_Encrypt lose-login count=1\nC_Login hang",
        "C_Encrypt error CKR_DEVICE_REMOVED\nC_Initialize hang",
    ] {
        outage.suffer(&script.replace('\n', "; "), script, CALL_TIMEOUT * 5 / 2);
    }
    let log = outage.vault.log();
    assert!(log.contains("its thread is given up and replaced"), "{log}");
    assert!(log.contains("HSM calls do not come back"), "there was no limit: {log}");
    outage.end();
}

#[test]
fn the_token_goes_away_and_comes_back() {
    let mut outage = Outage::new();
    let tokens = outage.vault.path("softhsm/tokens");
    let aside = outage.vault.path("softhsm/aside");
    let forget = "C_Encrypt lose-sessions count=1";

    outage.during("the token's directory is moved away and back", u64::MAX, |vault, _| {
        fs::rename(&tokens, &aside).unwrap();
        fs::create_dir(&tokens).unwrap();
        vault.trouble(forget);
        thread::sleep(FAULT);
        fs::remove_dir(&tokens).unwrap();
        fs::rename(&aside, &tokens).unwrap();
    });
    outage.during("the token's objects are deleted and put back", u64::MAX, |vault, _| {
        copy(&tokens, &aside);
        for object in objects(&tokens) {
            fs::remove_file(object).unwrap();
        }
        vault.trouble(forget);
        thread::sleep(FAULT);
        fs::remove_dir_all(&tokens).unwrap();
        fs::rename(&aside, &tokens).unwrap();
    });
    outage.during("the token is deleted and put back", u64::MAX, |vault, _| {
        copy(&tokens, &aside);
        let deleted = Command::new("softhsm2-util")
            .args(["--delete-token", "--token", "vaultd-dev"])
            .env("SOFTHSM2_CONF", vault.path("softhsm/softhsm2.conf"))
            .output();
        assert!(deleted.unwrap().status.success());
        vault.trouble(forget);
        thread::sleep(FAULT);
        fs::remove_dir_all(&tokens).unwrap();
        fs::rename(&aside, &tokens).unwrap();
    });
    outage.during("another program writes to the token", u64::MAX, |vault, _| {
        let other = vault.path("other");
        fs::write(&other, "something").unwrap();
        let object = ["--write-object", other.to_str().unwrap(), "--type", "data", "--label", "other"];
        let written = vault.pkcs11_tool(&object);
        assert!(written.status.success(), "{written:?}");
        vault.trouble(forget);
        thread::sleep(FAULT);
    });
    outage.end();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The files of a SoftHSM2 token that hold keys.
fn objects(tokens: &Path) -> Vec<PathBuf> {
    let token = fs::read_dir(tokens).unwrap().next().unwrap().unwrap().path();
    let files = fs::read_dir(token).unwrap().map(|entry| entry.unwrap().path());
    let is_object = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "object") && !path.ends_with("token.object")
    };
    files.filter(is_object).collect()
}

#[test]
fn a_module_that_is_slower_to_start_than_a_call_may_last_comes_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let vault = Vault::start_with(|config| {
        let hsm = format!("[hsm]\ncall_timeout_seconds = {}\n", CALL_TIMEOUT.as_secs());
        chaotic(&config).replace("[hsm]", &hsm)
    });
    let mut caller = Caller::new(&vault, seeded_random());
    caller.everything().unwrap();
    // Twice: a fresh session is tried first.
    vault.trouble("C_Encrypt error CKR_DEVICE_REMOVED count=2\nC_Initialize latency 1500ms");
    let since = Instant::now();
    while let Err(refusal) = caller.everything() {
        assert!(since.elapsed() < PATIENCE, "still {refusal:?}: {}", vault.log());
        thread::sleep(Duration::from_millis(50));
    }
    assert!(vault.log().contains("the HSM is back"), "it was never away: {}", vault.log());
}

#[test]
fn a_pin_that_is_refused_is_not_tried_again() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut vault = Vault::start_with(|config| chaotic(&config));
    let mut caller = Caller::new(&vault, seeded_random());
    caller.everything().unwrap();
    // A second login would go well.
    vault.trouble("C_Encrypt lose-login count=1\nC_Login error CKR_PIN_INCORRECT count=1");
    assert_eq!(caller.everything(), Err(Refusal("hsm_unavailable".to_owned())));
    thread::sleep(RECOVERY);
    assert_eq!(caller.everything(), Err(Refusal("hsm_unavailable".to_owned())));
    let ready = caller.send("GET", "/readyz", "");
    assert_eq!((ready.status, &ready.json()["checks"]["hsm"]["ok"]), (503, &json!(false)));
    assert!(ready.body.contains("refused the PIN"), "{ready:?}");
    assert_eq!(caller.send("GET", "/healthz", "").status, 200);
    assert_eq!(vault.log().matches("not tried again").count(), 1, "{}", vault.log());

    vault.calm();
    assert!(vault.stop().success());
    vault.restart();
    Caller::new(&vault, seeded_random()).everything().unwrap();
}
