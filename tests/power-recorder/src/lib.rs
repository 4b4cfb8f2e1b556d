//! A library for `LD_PRELOAD` that records, in order, what a program does to the files of some directories: so that what a
//! power failure would have left can be made of the record, for any moment, and opened with the real program.
//!
//! Environment: `POWER_RECORDER_DIRS` are absolute directories, separated by colons, whose files are recorded (no deeper
//! ones); `POWER_RECORDER_TRACE` is the file that is written. The directories must be empty or missing at the start. A
//! change is made and recorded under one lock, so that the record has the order of the file system. A wait for the disk
//! is recorded twice, before and after, and holds nobody up: what was written before its beginning is durable at its end.
//!
//! Only what Rust's standard library and `nix` call is intercepted, with absolute paths. Whoever uses the record holds it
//! against the directory as it is in the end: what was missed shows. The format is in `record`.
#![expect(unsafe_code, reason = "it stands in for functions of the C library")]

mod calls;
mod record;
