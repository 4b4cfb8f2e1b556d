//! vaultd, a vault for payment-card numbers.
#![deny(unsafe_code)]

pub mod audit;
pub mod auth;
pub mod card;
pub mod config;
pub mod hsm;
pub mod http;
pub mod sandbox;
pub mod store;
pub mod vault;
