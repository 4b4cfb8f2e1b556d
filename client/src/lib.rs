//! The async client of vaultd, the payment-card vault: HTTP/1.1 over the vault's Unix socket.
//!
//! [`VaultClient`] keeps a pool of connections, sends a request again only where that is safe, bounds the time of
//! a call and the size of an answer, and wipes the card data that passes through its own buffers. Card numbers
//! are [`Sensitive`]: they cannot be printed. What stays outside its reach are the kernel's socket buffers and the
//! read buffer of the HTTP library, which is overwritten by the next answer.
//!
//! [`Admin`] is the operator's client, of the admin socket.
//!
//! With the feature `blocking` there is the same client without async, in the module `blocking`.
//!
//! ```no_run
//! # async fn example() -> Result<(), vault_client::Error> {
//! use vault_client::{TokenizeRequest, VaultClient};
//!
//! let vault = VaultClient::from_env()?;
//! let answer = vault.tokenize(&TokenizeRequest::new("4111 1111 1111 1111")).await?;
//! let card = vault.detokenize(&answer.token).await?;
//! assert_eq!(card.pan.expose(), "4111111111111111");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod admin;
mod answer;
mod batch;
mod bearer;
#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
mod call;
mod client;
mod error;
mod limit;
mod login;
mod path;
mod retry;
mod transport;
mod wiping;

/// The README's example compiles as it stands.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

pub use vault_api as api;
pub use vault_api::{
    AuditAnswer, AuditQuery, Brand, CardData, Check, Code, EnvelopeClaims, Health, HoneyToken, Jwk, JwkSet,
    Key, KeyState, Lock, LoginAnswer, LoginRequest, MAX_AUDIT_LIMIT, MAX_AUDIT_WAIT_S, MAX_BATCH_ITEMS,
    MAX_SEARCH_LIMIT, Metadata, MetadataValue, OpenEnvelopeAnswer, PlantRequest, Problem, Readiness,
    Reloaded, Rewrap, RewrapState, Scope, SealEnvelopeAnswer, SealEnvelopeRequest, SearchAnswer,
    SearchRequest, Sensitive, Status, TokenPatch, TokenRecord, TokenizeAnswer, TokenizeRequest,
};

pub use crate::{
    admin::Admin,
    answer::{Detokenized, MAX_ANSWER_BYTES},
    batch::ItemError,
    bearer::MAX_TOKEN_BYTES,
    builder::{ClientBuilder, DEFAULT_SOCKET},
    client::{ADMIN_SOCKET_NAME, VaultClient},
    error::{Error, TokenError},
    limit::RateLimit,
    retry::RetryPolicy,
};
