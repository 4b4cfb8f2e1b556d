//! vaultd, a vault for payment-card numbers.
#![deny(unsafe_code)]

pub mod auth;
pub mod card;
pub mod config;
pub mod hsm;
pub mod store;
pub mod vault;
