//! vaultd, a vault for payment-card numbers.
#![deny(unsafe_code)]

pub mod card;
pub mod auth;
pub mod hsm;
pub mod store;
pub mod vault;
