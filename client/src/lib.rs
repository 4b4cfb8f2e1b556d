//! The async client of vaultd, the payment-card vault: HTTP/1.1 over the vault's Unix socket.
//!
//! [`VaultClient`] keeps a pool of connections, sends a request again only where that is safe, bounds the time of
//! a call and the size of an answer, and wipes the card data that passes through its own buffers. Card numbers
//! are [`Sensitive`]: they cannot be printed. What stays outside its reach are the kernel's socket buffers and the
//! read buffer of the HTTP library, which is overwritten by the next answer.
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

mod answer;
mod batch;
mod bearer;
#[cfg(feature = "blocking")]
pub mod blocking;
mod builder;
mod call;
mod client;
mod error;
mod login;
mod path;
mod retry;
mod transport;
mod wiping;

pub use vault_api as api;
pub use vault_api::{
    Brand, CardData, Check, Code, EnvelopeClaims, Health, Jwk, JwkSet, LoginAnswer, LoginRequest,
    MAX_BATCH_ITEMS, MAX_SEARCH_LIMIT, Metadata, MetadataValue, OpenEnvelopeAnswer, Problem, Readiness,
    Scope, SealEnvelopeAnswer, SealEnvelopeRequest, SearchAnswer, SearchRequest, Sensitive, TokenPatch,
    TokenRecord, TokenizeAnswer, TokenizeRequest,
};

pub use crate::{
    answer::{Detokenized, MAX_ANSWER_BYTES},
    batch::ItemError,
    bearer::MAX_TOKEN_BYTES,
    builder::{ClientBuilder, DEFAULT_SOCKET},
    client::VaultClient,
    error::{Error, TokenError},
    retry::RetryPolicy,
};
