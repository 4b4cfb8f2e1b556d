//! The client's own logic against a stub: what is sent, what is sent again, and what the caller learns.
// The helpers of tests may unwrap as the tests do; clippy.toml reaches only functions marked `#[test]`.
#![allow(clippy::unwrap_used)]

mod admin;
mod answers;
mod behaviour;
#[cfg(feature = "blocking")]
mod blocking;
mod endpoints;
mod login;
mod stub;
