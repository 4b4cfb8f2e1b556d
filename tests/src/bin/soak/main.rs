//! `make soak`: a vault at 70 % of its peak for an hour, with a fault every few seconds.
//!
//! Every answer is checked, and everything that was acknowledged is asked for at the end. `SOAK_MINUTES` is how long it takes, 60
//! unless it is set. In the first third the daemon is killed now and then; after that one process lives on, under all the
//! other faults, whose memory and descriptors are to stay as they are. Exit status 1 if anything is wrong, lost or growing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for developers, which reports on standard output and by its panics"
)]

mod trouble;
mod watch;

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use trouble::Trouble;
use vault_tests::{Load, NO_ANSWER, Tally, Vault, built, chaotic};
use watch::Watch;

const CALLERS: u64 = 16;
/// Of the peak, in per cent.
const SHARE: u64 = 70;
const WARM_UP: Duration = Duration::from_secs(5);
const PEAK: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_mins(1);
/// How long after a fault nothing else happens, at most; at least half of it.
const CALM: Duration = Duration::from_secs(4);
/// How soon all must be well again after a fault.
const RECOVERY: Duration = Duration::from_secs(10);
/// What a fault may bring about.
const FITTING: [&str; 5] =
    ["hsm_unavailable", "store_unavailable", "audit_unavailable", "overloaded", NO_ANSWER];

/// One run.
struct Soak {
    vault: Vault,
    load: Load,
    watch: Watch,
    /// Faults since the last row, by name.
    faults: BTreeMap<&'static str, u32>,
    tally: Tally,
    total: u64,
    wrong: Vec<String>,
    /// The first file of the audit log that is still there.
    audit_file: u32,
}

fn main() -> ExitCode {
    let minutes = std::env::var("SOAK_MINUTES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let vault = Vault::start_with(|config| {
        chaotic(&config)
            .replace("[hsm]", "[hsm]\ncall_timeout_seconds = 1")
            // Small, so that they are full soon: what grows after that is a leak.
            .replace("[store]", "[store]\ncache_mib = 16")
            .replace("[auth]\n", "[auth]\ncache_entries = 1000\n")
            .replace("[audit]", "[audit]\nrotate_mib = 64")
            + "\n[limits]\nrequest_timeout_seconds = 5\nheader_timeout_seconds = 5\nbody_timeout_seconds = 5\n\
               [keys]\nrewrap_records_per_second = 2000\n"
    });
    let load = Load::start(&vault, CALLERS);
    thread::sleep(WARM_UP);
    load.take();
    thread::sleep(PEAK);
    let peak = load.take().done / PEAK.as_secs();
    let pace = peak * SHARE / 100;
    println!("peak {peak} steps/s with {CALLERS} callers; {pace} from now on, for {minutes} minutes");
    load.pace(pace);
    let mut soak = Soak {
        vault,
        load,
        watch: Watch::default(),
        faults: BTreeMap::new(),
        tally: Tally::default(),
        total: 0,
        wrong: Vec::new(),
        audit_file: 1,
    };
    soak.run(minutes);
    soak.end()
}

impl Soak {
    fn run(&mut self, minutes: u32) {
        let began = Instant::now();
        let (killing, whole) = (MINUTE * minutes / 3, MINUTE * minutes);
        let mut troubles = Trouble::shuffled();
        self.watch.new_process();
        println!("{:>6} {:>9} {:>8} {:>5}  refused, faults", "minute", "answers", "KiB", "fds");
        for minute in 1..=minutes {
            while began.elapsed() < MINUTE * minute {
                let trouble = troubles.next().unwrap_or_else(|| {
                    troubles = Trouble::shuffled();
                    troubles.next().unwrap()
                });
                if trouble == Trouble::Kill && began.elapsed() > killing {
                    continue;
                }
                *self.faults.entry(trouble.name()).or_default() += 1;
                trouble.happen(&mut self.vault);
                if trouble == Trouble::Kill {
                    self.watch.new_process();
                }
                self.recover(trouble.name());
                let left = whole.saturating_sub(began.elapsed());
                thread::sleep(CALM.mul_f64(0.5 + fastrand::f64() / 2.0).min(left));
                self.look();
            }
            self.row(minute);
        }
    }

    /// Waits until the vault serves again.
    fn recover(&mut self, name: &str) {
        let over = Instant::now();
        while self.vault.request("GET", "/readyz", "").status != 200 {
            if over.elapsed() > RECOVERY {
                self.wrong.push(format!("{name}: not ready after {RECOVERY:?}"));
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Takes note of what came since the last time.
    fn look(&mut self) {
        let tally = self.load.take();
        self.total += tally.done;
        self.tally.done += tally.done;
        self.tally.slowest = self.tally.slowest.max(tally.slowest);
        for wrong in tally.wrong {
            self.complain(wrong);
        }
        for (code, count) in tally.refused {
            if !FITTING.contains(&code.as_str()) {
                self.complain(format!("{count} times {code}, which fits no fault"));
            }
            *self.tally.refused.entry(code).or_default() += count;
        }
        let missing = self.load.meet();
        if missing > 0 {
            self.complain(format!("{missing} answers without an entry in the audit log"));
        }
        // As an operator does who keeps them elsewhere: a start reads from the last checkpoint, which may be in the file before.
        while self.audit_file + 1 < self.load.audit_file() {
            let _ = fs::remove_file(self.vault.path(&format!("audit/audit-{:08}.jsonl", self.audit_file)));
            self.audit_file += 1;
        }
        self.watch.look(&self.vault);
    }

    fn complain(&mut self, wrong: String) {
        println!("WRONG {wrong}");
        self.wrong.push(wrong);
    }

    fn row(&mut self, minute: u32) {
        let Tally { done, refused, slowest, .. } = std::mem::take(&mut self.tally);
        let (kib, descriptors) = self.watch.last();
        println!(
            "{minute:>6} {done:>9} {kib:>8} {descriptors:>5}  {refused:?}, slowest {} ms; {:?}",
            slowest.as_millis(),
            std::mem::take(&mut self.faults)
        );
    }

    fn end(mut self) -> ExitCode {
        self.look();
        let Self { mut vault, load, watch, mut wrong, total, .. } = self;
        println!("{total} steps in all; {} wrong answers", wrong.len());
        match catch_unwind(AssertUnwindSafe(|| load.settle(&vault))) {
            Ok(settled) => println!("{settled:?}: 0 acknowledged tokens lost, 0 deleted tokens back"),
            Err(_) => wrong.push("what was acknowledged is not so: see above".to_owned()),
        }
        wrong.extend(watch.verdict());
        // Without a limit, for it opens every record.
        let mut check = Command::new(built("vaultd"));
        check.args(["check", "--deep", "--quick", "--config"]).arg(vault.path("vaultd.toml"));
        if !vault.stop().success() || !check.status().unwrap().success() {
            wrong.push("`vaultd check --deep` finds something wrong".to_owned());
        }
        if wrong.is_empty() {
            println!("the soak is passed");
            return ExitCode::SUCCESS;
        }
        println!("the soak FAILED: {wrong:#?}");
        ExitCode::FAILURE
    }
}
