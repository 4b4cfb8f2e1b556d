//! The store and power failures: whatever a failure leaves of what was not yet durable, the store opens, holds everything
//! that it has acknowledged, and has done nothing by half.
//!
//! `VAULT_CRASH_POINTS` says how many moments are tried. To see it fail: give a transaction of the store's writer
//! `set_durability(redb::Durability::None)`, or answer before the commit.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, fs, process::Command};

use vault_tests::{Disk, Left, Recording, crash_points, memory_dir, seeded_random, store_load};

/// Changes that each of those who change the store makes.
const STEPS: usize = 40;

#[test]
fn whatever_is_left_of_the_store_is_whole() {
    let mut random = seeded_random();
    let home = memory_dir();
    let dir = home.path().join("store");
    fs::create_dir(&dir).unwrap();
    let recording = Recording::of(vec![dir.clone()]);
    let mut load = Command::new(env!("CARGO_BIN_EXE_store-load"));
    load.arg(&dir).args([random.u64(..).to_string(), STEPS.to_string()]);
    recording.instrument(&mut load);
    assert!(load.status().unwrap().success());

    let trace = recording.trace();
    recording.assert_whole(&trace);
    let mut points = BTreeMap::<usize, usize>::new();
    for _ in 0..crash_points(60) {
        *points.entry(random.usize(..=trace.len())).or_default() += 1;
    }
    let (mut disk, mut tried, mut acknowledged) = (Disk::default(), 0, 0);
    for (point, times) in points {
        disk.advance(&trace, point);
        let journal = disk.read(&dir.join("journal"));
        for _ in 0..times {
            let left = Left::any(&mut random);
            println!("a power failure after change {point} of {}, with {left:?} left", trace.len());
            disk.restore(left, &mut random);
            acknowledged += store_load::check(&dir, journal.as_deref());
            tried += 1;
        }
    }
    let (longer, shorter) = trace.resizes();
    assert!(longer > 1, "the file grew {longer} times");
    // It shrinks in nearly all runs; not if a page that lives has come to lie at its end.
    println!(
        "{tried} power failures in {} changes, while the file grew {longer} times and shrank {shorter} times: \
         {acknowledged} acknowledged changes found",
        trace.len()
    );
}
