//! `vaultctl`: the command line of the vault, for operators and scripts.
#![forbid(unsafe_code)]

use std::{alloc::System, ffi::OsString, process::ExitCode};

use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed: buffers of libraries that know nothing of card data.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    vaultctl::main(&words)
}
