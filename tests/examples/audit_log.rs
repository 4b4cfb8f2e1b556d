//! Writes an audit log of any length, to measure with: `cargo run --release --example audit_log -- DIR LINES`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a tool of the tests")]

use std::{env, fs, path::PathBuf};

use vault_tests::{AuditKey, MadeLog, seeded_random};

/// Requests between two checkpoints, as the daemon has it where its configuration says nothing.
const LINES_PER_CHECKPOINT: u64 = 10_000;
/// Requests in a file: about 256 MiB.
const LINES_PER_FILE: u64 = 650_000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [dir, lines] = arguments.as_slice() else { panic!("DIR LINES") };
    let (dir, lines) = (PathBuf::from(dir), lines.parse().unwrap());
    fs::create_dir_all(&dir).unwrap();
    let (key, mut random) = (AuditKey::generate(), seeded_random());
    let mut log = MadeLog::begin(&dir, "0123456789abcdef", &key);
    let mut requests = 0_u64;
    while log.seq() < lines {
        log.access(&mut random);
        requests += 1;
        if requests.is_multiple_of(LINES_PER_CHECKPOINT) {
            let signed = log.sign(false);
            log.checkpoint(&signed);
        }
        if requests.is_multiple_of(LINES_PER_FILE) {
            log.rotate();
        }
    }
    log.stop();
}
