//! JWTs that may be used once.

use sha2::{Digest, Sha256};

use super::AuthError;
use crate::{
    store::{Store, Use, UseKind},
    vault::settled_s,
};

/// Remembers the `jti` of single-use JWTs in the store until they have expired, across restarts. Bounded: what does not
/// fit is refused.
pub(super) struct ReplayMemory {
    store: Store,
    most: usize,
}

impl ReplayMemory {
    pub(super) fn new(store: Store, most: usize) -> Self {
        Self { store, most }
    }

    /// Uses up `jti` of `issuer`, whatever for; it is remembered until `until_s` (seconds of Unix time). `kind`: approvals are
    /// remembered apart, so that no caller's JWTs are in their way.
    pub(super) async fn use_up(
        &self,
        kind: UseKind,
        issuer: &str,
        jti: &str,
        until_s: u64,
    ) -> Result<(), AuthError> {
        let mut hash = Sha256::new();
        for part in ["vaultd jti v2", issuer, jti] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        match self.store.use_up(kind, hash.finalize().into(), until_s, settled_s(), self.most).await? {
            Use::First => Ok(()),
            Use::Again => Err(AuthError::Replayed),
            Use::Over => Err(AuthError::Expired),
            Use::Full => Err(AuthError::ReplayMemoryFull),
        }
    }
}
