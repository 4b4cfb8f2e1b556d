//! The machine gives no more: descriptors, disk, memory.

use std::{
    fs,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use vault_tests::{Load, NO_ANSWER, Pans, SmallDisk, Tally, Vault, exchange_if_whole, not_run};

use crate::{CALLERS, RECOVERY, is_served, is_well, rounds, seen};

const FAULT: Duration = Duration::from_secs(1);
const DISK_KIB: u32 = 16 * 1_024;
/// How long memory is asked for.
const GREED: Duration = Duration::from_secs(4);
/// What of it there is left.
const LITTLE_MEMORY: u64 = 24 * 1_048_576;
const GREEDY: u64 = 24;
/// In a file of the audit log, so that there are many.
const FILE_ENTRIES: u32 = 1_000;

#[test]
fn without_a_free_descriptor() {
    let vault = Vault::start_with(|config| {
        config.replace("[audit]", &format!("[audit]\nrotate_entries = {FILE_ENTRIES}"))
    });
    let load = Load::start(&vault, CALLERS);
    is_well(&vault, &load);
    for free in 0..rounds() {
        load.take();
        let open = vault.descriptors() + usize::try_from(free).unwrap();
        vault.limit(&format!("--nofile={open}:"));
        // The system takes them up for the daemon, which has no descriptors for them.
        let waiting: Vec<_> = (0..100).filter_map(|_| UnixStream::connect(vault.socket()).ok()).collect();
        thread::sleep(FAULT);
        // Those who have a connection.
        is_served(&load);
        let tally = load.take();
        let codes = ["hsm_unavailable", "audit_unavailable", "store_unavailable", "overloaded"];
        seen(&format!("no descriptor but {free}, {} wait", waiting.len()), &tally, &codes);
        vault.limit("--nofile=4096:");
        drop(waiting);
        is_well(&vault, &load);
    }
    eprintln!("{:?}", load.settle(&vault));
    let log = vault.log();
    assert_eq!(log.matches("cannot accept connections").count(), usize::try_from(rounds()).unwrap(), "{log}");
}

#[test]
fn a_disk_that_is_full_under_load() {
    for (name, code) in [("store", "store_unavailable"), ("audit", "audit_unavailable")] {
        let mut vault = Vault::start();
        assert!(vault.stop().success());
        let Some(disk) = SmallDisk::under(&vault.path(name), DISK_KIB) else { return };
        vault.restart();
        let load = Load::start(&vault, CALLERS);
        let mut pans = Pans::in_lane(fastrand::Rng::new(), 999);
        for _ in 0..rounds() {
            is_well(&vault, &load);
            disk.fill();
            let began = Instant::now();
            let mut tally = Tally::default();
            // Until the store has to grow.
            while !tally.refused.contains_key(code) {
                assert!(began.elapsed() < RECOVERY, "{name}: nobody was refused: {tally:?}");
                let items: Vec<_> = pans.take(500).into_iter().map(|pan| json!({ "pan": pan })).collect();
                vault.request("POST", "/v1/tokenize/batch", &json!({ "items": items }).to_string());
                tally = load.take();
            }
            thread::sleep(FAULT);
            seen(&format!("no room for the {name}"), &load.take(), &[code, "overloaded"]);
            disk.free();
        }
        is_well(&vault, &load);
        eprintln!("{:?}", load.settle(&vault));
        assert!(vault.stop().success());
        assert!(vault.run_with(&["check", "--deep", "--quick"]).status.success());
    }
}

#[test]
fn a_file_that_may_not_grow_under_load() {
    let vault = Vault::start();
    let load = Load::start(&vault, CALLERS);
    for _ in 0..rounds() {
        is_well(&vault, &load);
        vault.limit("--fsize=4096:");
        thread::sleep(FAULT);
        vault.limit("--fsize=unlimited:");
        let tally = load.take();
        let codes = ["store_unavailable", "audit_unavailable", "hsm_unavailable", "overloaded"];
        seen("no file may grow", &tally, &codes);
        assert!(!tally.refused.is_empty());
    }
    is_well(&vault, &load);
    eprintln!("{:?}", load.settle(&vault));
}

/// A control group, which goes when this is dropped.
struct Group(PathBuf);

impl Group {
    /// Puts the daemon into a group that may have `bytes` more memory. The first version of control groups does not count
    /// what was there before; the second does.
    fn of(vault: &Vault, bytes: u64) -> Option<Self> {
        let name = format!("vaultd-test-{}", vault.pid());
        let (path, limit, bytes) = if Path::new("/sys/fs/cgroup/memory").exists() {
            (Path::new("/sys/fs/cgroup/memory").join(name), "memory.limit_in_bytes", bytes)
        } else {
            let there = vault.status_kib("VmRSS") * 1_024;
            (Path::new("/sys/fs/cgroup").join(name), "memory.max", bytes + there)
        };
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        fs::write(group.0.join("cgroup.procs"), vault.pid().to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The members of a killed process leave it a moment later.
        for _ in 0..50 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Asks for much at once until the daemon has ended, or for a while.
fn be_greedy(vault: &mut Vault) {
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    let (socket, jwt) = (vault.socket(), vault.jwt());
    thread::scope(|scope| {
        for lane in 0..GREEDY {
            let (stop, socket, jwt) = (&stop, &socket, &jwt);
            scope.spawn(move || {
                let mut pans = Pans::in_lane(fastrand::Rng::new(), 999 - lane);
                while !stop.load(Ordering::Relaxed) {
                    let note = "n".repeat(400);
                    let item = |pan| json!({ "pan": pan, "holder": "Ada Lovelace", "metadata": { "note": note } });
                    let items: Vec<_> = pans.take(1_000).into_iter().map(item).collect();
                    let body = json!({ "items": items }).to_string();
                    let request = format!(
                        "POST /v1/tokenize/batch HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
                         application/json\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    exchange_if_whole(socket, request.as_bytes());
                }
            });
        }
        while !vault.has_ended() && began.elapsed() < GREED {
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn without_memory_it_refuses_or_ends_and_starts_again() {
    // The allocator sets a GiB of addresses aside, all of which the process has if they may be written to at once.
    // With backtraces, since vaultd once neither served nor ended where there was no memory for one.
    let environment = ["env", "MIMALLOC_ARENA_EAGER_COMMIT=0", "RUST_BACKTRACE=1"];
    let start = |vault: &mut Vault| vault.restart_through(&environment);
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    vault.change_config(|config| config + "\n[limits]\nrequest_timeout_seconds = 5\n");
    start(&mut vault);
    let load = Load::start(&vault, CALLERS);
    let codes = ["hsm_unavailable", "audit_unavailable", "store_unavailable", "overloaded", NO_ANSWER];
    for round in 0..rounds() {
        is_well(&vault, &load);
        // What the process may have, and what the system gives to all that belongs to it.
        let group = if round % 2 == 0 {
            let more = vault.status_kib("VmData") * 1_024 + LITTLE_MEMORY;
            vault.limit(&format!("--data={more}:"));
            None
        } else {
            let group = Group::of(&vault, LITTLE_MEMORY);
            if group.is_none() {
                not_run("there are no control groups for memory that this user may make");
                continue;
            }
            group
        };
        be_greedy(&mut vault);
        let ended = vault.has_ended().then(|| vault.wait());
        let kind = if group.is_some() { "of its group" } else { "of the process" };
        let tally = load.take();
        seen(&format!("no memory {kind}: {ended:?}"), &tally, &codes);
        assert!(ended.is_some() || !tally.refused.is_empty(), "there was memory {kind}");
        match ended {
            // By itself, or by the kernel.
            Some(status) => {
                assert!([Some(6), Some(9)].contains(&status.signal()), "{status:?}");
                start(&mut vault);
            }
            None if group.is_none() => vault.limit("--data=unlimited:"),
            None => {}
        }
        if let (Some(group), None) = (&group, ended) {
            fs::write(group.0.parent().unwrap().join("cgroup.procs"), vault.pid().to_string()).unwrap();
        }
    }
    is_well(&vault, &load);
    eprintln!("{:?}", load.settle(&vault));
    assert!(vault.stop().success());
    assert!(vault.run_with(&["check", "--deep", "--quick"]).status.success());
}
