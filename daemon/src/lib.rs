//! vaultd, a vault for payment-card numbers.
//!
//! A request comes in through [`http`], [`auth`] says who calls, [`vault`] decides, and three engines do one thing
//! each: [`hsm`] every secret operation, [`store`] what is kept, [`audit`] what is known of it. [`command`] puts them
//! together and is the only room that knows all of them. `docs/architecture.md` has the plan of the house.
#![deny(unsafe_code)]

pub mod audit;
pub mod auth;
pub mod backup;
pub mod card;
pub mod command;
pub mod config;
pub mod guards;
pub mod hsm;
pub mod http;
pub mod jose;
pub mod metrics;
pub mod sandbox;
pub mod store;
pub mod vault;
