//! `kill -9` while everybody does everything.

use std::{thread, time::Duration};

use vault_tests::{Load, NO_ANSWER, Vault};

use crate::{CALLERS, is_served, rounds, seen};

#[test]
fn whatever_was_acknowledged_is_so_after_kill_9() {
    let mut vault = Vault::start();
    let load = Load::start(&vault, CALLERS);
    for round in 0..rounds() * 2 {
        thread::sleep(Duration::from_millis(fastrand::u64(200..900)));
        is_served(&load);
        vault.kill();
        vault.restart();
        let tally = load.take();
        assert!(tally.done > 0, "{tally:?}");
        seen(&format!("kill -9, number {round}"), &tally, &[NO_ANSWER]);
    }
    eprintln!("{:?}", load.settle(&vault));
    assert!(vault.stop().success());
    assert!(vault.run_with(&["check", "--deep", "--quick"]).status.success());
    let verified = vault_tests::run(&["audit", "verify", vault.path("audit").to_str().unwrap()]);
    assert!(verified.status.success(), "{verified:?}");
}
