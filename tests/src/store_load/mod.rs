//! The store at work, with a journal of what was asked of it and what it has acknowledged; and whether a store that a power
//! failure has left agrees with the journal.

mod facts;
mod journal;
mod lane;

use std::{path::Path, thread};

pub use facts::check;
pub use journal::Journal;

use facts::{CACHE_BYTES, QUEUE};
use journal::JOURNAL;
use lane::{LANES, Lane};
use vaultd::store::{KeyState, Store, StoredKey};

/// Makes a store in `dir` and works on it, from several threads at once, with what follows from `seed`; `steps` is how many
/// changes each makes. The journal is a file beside the store's.
pub fn run(dir: &Path, seed: u64, steps: usize) {
    let store = Store::create(dir, [7; 16], CACHE_BYTES, QUEUE).unwrap();
    for name in ["record-v1", "fingerprint-v1", "holder-v1"] {
        store.put_key(name, &StoredKey::new(KeyState::Active, 1, Vec::new())).unwrap();
    }
    let journal = Journal::begin(&dir.join(JOURNAL));
    let mut random = fastrand::Rng::with_seed(seed);
    thread::scope(|scope| {
        for number in 0..LANES {
            let (mut sizes, store) = (random.fork(), &store);
            let mut lane = Lane::new(number, store, &journal, random.fork());
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for step in 0..steps {
                    // As if the store had become large, or small again.
                    store.recover_quickly_from(if sizes.bool() { 0 } else { u64::MAX });
                    runtime.block_on(lane.step(step, steps));
                }
            });
        }
    });
    store.close();
}
