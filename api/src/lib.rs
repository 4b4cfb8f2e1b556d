//! The wire types of the vaultd HTTP API: one definition for the daemon, the client and the OpenAPI document.
//!
//! Serde types and nothing else: no I/O and no decisions. Card data travels in [`Sensitive`], which wipes itself
//! and cannot be printed.
#![forbid(unsafe_code)]

mod audit;
mod code;
mod envelopes;
mod guards;
mod health;
mod jwks;
mod keys;
mod login;
mod metadata;
mod problem;
mod scope;
mod search;
mod sensitive;
mod tokens;

pub use audit::{AUDIT_OPERATIONS, AuditAnswer, AuditQuery, MAX_AUDIT_LIMIT, MAX_AUDIT_WAIT_S};
pub use code::Code;
pub use envelopes::{
    CardData, EnvelopeClaims, OpenEnvelopeAnswer, OpenEnvelopeRequest, SealEnvelopeAnswer,
    SealEnvelopeRequest,
};
pub use guards::{HoneyToken, HoneyTokens, Lock, Locks, PlantRequest, UnlockRequest, Unlocked};
pub use health::{Check, Health, Readiness};
pub use jwks::{Jwk, JwkSet};
pub use keys::{Key, KeyState, Keys, Reloaded, Rewrap, RewrapState, Status};
pub use login::{LoginAnswer, LoginRequest};
pub use metadata::{Metadata, MetadataValue};
pub use problem::{ItemError, NO_ENDPOINT, Problem};
pub use scope::Scope;
pub use search::{CompareAnswer, CompareRequest, MAX_SEARCH_LIMIT, SearchAnswer, SearchRequest};
pub use sensitive::Sensitive;
pub use tokens::{
    BatchAnswer, BatchItem, Brand, DetokenizeAnswer, DetokenizeBatchRequest, DetokenizeRequest, Reveal,
    TokenPatch, TokenRecord, TokenizeAnswer, TokenizeBatchRequest, TokenizeRequest,
};

/// The most items a batch request may carry.
pub const MAX_BATCH_ITEMS: usize = 1_000;
