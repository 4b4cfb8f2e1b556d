//! What the fuzz targets hold, without the fuzzer: each is a function of bytes that panics if a promise is broken.
//!
//! `docs/fuzzing.md` has a table of them. `targets/` hands each to libFuzzer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target says by a panic what it found"
)]
#![allow(clippy::missing_panics_doc, reason = "to panic is what each target is for")]
#![forbid(unsafe_code)]

pub mod bodies;
pub mod calls;
pub mod ctl;
pub mod domain;
pub mod envelope;
pub mod files;
pub mod jwt;
pub mod streams;
pub mod texts;
pub mod world;

mod answer;
mod issuer;
mod model;
mod server;
mod session;
