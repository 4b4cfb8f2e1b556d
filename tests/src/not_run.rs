//! What a run could not show.

use std::{
    io::{Write as _, stderr},
    thread,
};

/// Says on standard error that this test, or the part of it that `why` names, was not run. Not by `eprintln!`, of which
/// libtest shows nothing where a test passes.
pub fn not_run(why: &str) {
    let thread = thread::current();
    let said = format!("NOT RUN: {}: {why}\n", thread.name().unwrap_or("a test"));
    stderr().write_all(said.as_bytes()).unwrap();
}
