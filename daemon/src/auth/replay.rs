//! JWTs that may be used once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use sha2::{Digest, Sha256};
use vault_api::Scope;

use super::AuthError;

/// Remembers the `jti` of single-use JWTs until they have expired. Bounded: what does not fit is refused.
pub(super) struct ReplayMemory {
    most: usize,
    used: Mutex<HashMap<[u8; 32], u64>>,
}

impl ReplayMemory {
    pub(super) fn new(most: usize) -> Self {
        Self { most, used: Mutex::default() }
    }

    /// Uses up `jti` of `issuer` for `scope`; it is remembered until `until_s` (seconds of Unix time).
    pub(super) fn use_up(
        &self,
        issuer: &str,
        jti: &str,
        scope: Scope,
        until_s: u64,
        now_s: u64,
    ) -> Result<(), AuthError> {
        let mut hash = Sha256::new();
        for part in [issuer, jti, scope.as_str()] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let key = hash.finalize().into();
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= self.most {
            used.retain(|_, until_s| *until_s > now_s);
        }
        if used.get(&key).is_some_and(|until_s| *until_s > now_s) {
            return Err(AuthError::Replayed);
        }
        if used.len() >= self.most {
            return Err(AuthError::ReplayMemoryFull);
        }
        used.insert(key, until_s);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jti_is_good_once_for_each_scope_and_issuer() {
        let memory = ReplayMemory::new(10);
        let use_up = |issuer, jti, scope, now_s| memory.use_up(issuer, jti, scope, 100, now_s);
        assert_eq!(use_up("i", "1", Scope::Tokenize, 0), Ok(()));
        assert_eq!(use_up("i", "1", Scope::Tokenize, 99), Err(AuthError::Replayed));
        assert_eq!(use_up("i", "1", Scope::Detokenize, 0), Ok(()));
        assert_eq!(use_up("j", "1", Scope::Tokenize, 0), Ok(()));
        assert_eq!(use_up("i", "2", Scope::Tokenize, 0), Ok(()));
    }

    #[test]
    fn a_full_memory_refuses_until_something_expires() {
        let memory = ReplayMemory::new(1);
        assert_eq!(memory.use_up("i", "1", Scope::Tokenize, 100, 0), Ok(()));
        assert_eq!(memory.use_up("i", "2", Scope::Tokenize, 200, 50), Err(AuthError::ReplayMemoryFull));
        assert_eq!(memory.use_up("i", "2", Scope::Tokenize, 200, 100), Ok(()));
    }
}
