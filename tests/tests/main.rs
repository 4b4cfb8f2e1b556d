//! The end-to-end tests: one program, so that it is linked once and tests that wait do so side by side.
//!
//! `cargo test -p vault-tests --test e2e jwt::` runs those of one file. Tests that time how the
//! vault recovers, or take the machine to its limits, are programs of their own instead (`tests/Cargo.toml`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod approvals;
mod audit_killed;
mod audit_tamper;
mod audit_trouble;
mod audit_verify;
mod backup;
mod codes;
mod durability;
mod guards;
mod hangs;
mod hostile;
mod hostile_module;
mod jwt;
mod keys;
mod keys_killed;
mod logging;
mod memory;
mod model;
mod modules;
mod power_daemon;
mod power_store;
mod root_start;
mod search;
mod services;
mod startup;
mod story;
mod tamper;
mod thief;
mod trouble;
mod vaultctl;
mod vaultctl_files;
mod vaultctl_jwts;
mod vaultctl_slips;
mod vaultctl_trouble;

use std::{fs, path::Path};

#[test]
fn every_file_of_tests_is_run() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = fs::read_to_string(package.join("Cargo.toml")).unwrap() + include_str!("main.rs");
    for entry in fs::read_dir(package.join("tests")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.trim_end_matches(".rs");
        let ways = [
            format!("path = \"tests/{file}\""),
            format!("path = \"tests/{file}/main.rs\""),
            format!("\nmod {name};"),
        ];
        assert!(ways.iter().any(|way| run.contains(way)), "{file} belongs to no test program");
    }
}
