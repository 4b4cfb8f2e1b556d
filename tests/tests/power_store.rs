//! The store and power failures: whatever a failure leaves of what was not yet durable, the store opens, holds everything
//! that it has acknowledged, and has done nothing by half.
//!
//! `VAULT_CRASH_POINTS` says how many moments are tried. To see it fail: give a transaction of the store's writer
//! `set_durability(redb::Durability::None)`, or answer before the commit.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use vault_tests::{
    Disk, Left, Recording, Trace, crash_points, finish, memory_dir, seeded_random, store_load,
};

/// Changes that each of those who change the store makes.
const STEPS: usize = 40;

#[test]
fn whatever_is_left_of_the_store_is_whole() {
    let mut random = seeded_random();
    let home = memory_dir();
    let (dir, trace) = recorded(home.path(), &mut random);
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
    assert!(longer > 1 && shorter > 0, "the file grew {longer} times and shrank {shorter} times");
    println!("{tried} power failures in {} changes: {acknowledged} acknowledged changes found", trace.len());
    assert!(acknowledged > 0, "nothing was looked for");
}

/// A store that was at work in a directory within `home`, and the changes of its files. Whether the end of its file is ever
/// free, so that it shrinks, is left to chance, three times in four: the first that does is taken.
fn recorded(home: &Path, random: &mut fastrand::Rng) -> (PathBuf, Trace) {
    const MOST_TRIES: usize = 12;
    let tries = (1..=MOST_TRIES).map(|number| {
        let dir = home.join(format!("store-{number}"));
        fs::create_dir(&dir).unwrap();
        let recording = Recording::of(vec![dir.clone()]);
        let mut load = Command::new(env!("CARGO_BIN_EXE_store-load"));
        load.arg(&dir).args([random.u64(..).to_string(), STEPS.to_string()]);
        recording.instrument(&mut load);
        let ran = finish(&mut load, "");
        assert_eq!(ran.status, Some(0), "{ran:?}");
        let trace = recording.trace();
        recording.assert_whole(&trace);
        (number, dir, trace)
    });
    let mut tries = tries.skip_while(|(number, _, trace)| trace.resizes().1 == 0 && *number < MOST_TRIES);
    let (_, dir, trace) = tries.next().unwrap();
    (dir, trace)
}
