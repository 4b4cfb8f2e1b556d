//! How long what was made with a key may live outside the store.
//!
//! The configuration says how long what is made now may live. What was made before it was changed lives on as it was
//! made, so the store keeps a note of what has been allowed.

use serde::{Deserialize, Serialize};

use super::{KeyRules, VaultError};
use crate::{
    hsm::Purpose,
    store::{Store, StoreError},
    vault::now_s,
};

/// The store's note of them.
const NOTE: &str = "key-lifetimes";

/// The lifetimes of what keys make, as the store remembers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lifetimes {
    jwt: Span,
    envelope: Span,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    /// How long a key may be needed by what is made now, in seconds.
    needed_s: u64,
    /// When the last is over of what was made while that was longer, in seconds of Unix time.
    older_until_s: u64,
}

impl Lifetimes {
    /// Those of `rules`, and what `store` knows of earlier ones; it remembers both when this returns. Blocks.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub(super) fn open(store: &Store, rules: &KeyRules) -> Result<Self, VaultError> {
        let damaged = |_| StoreError::Failed(format!("the note {NOTE} is damaged"));
        let known = store.note(NOTE)?.map(|bytes| serde_json::from_slice(&bytes).map_err(damaged));
        let known = known.transpose()?.unwrap_or(Self { jwt: Span::default(), envelope: Span::default() });
        let now_s = now_s();
        let lifetimes = Self {
            jwt: known.jwt.then(rules.needed_s(Purpose::Jwt), now_s),
            envelope: known.envelope.then(rules.needed_s(Purpose::Envelope), now_s),
        };
        lifetimes.keep(store)?;
        Ok(lifetimes)
    }

    /// JWTs may need their key for `seconds` from now on, if that is longer than before. Holds whether `store` can remember
    /// it or not. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot.
    pub(super) fn allow_jwts(&mut self, store: &Store, seconds: u64) -> Result<(), StoreError> {
        self.jwt.needed_s = self.jwt.needed_s.max(seconds);
        self.keep(store)
    }

    /// Until when something outside the store may need a key of `purpose` that is in use at `now_s`.
    pub(super) fn needed_until_s(&self, purpose: Purpose, now_s: u64) -> u64 {
        let span = match purpose {
            Purpose::Jwt => self.jwt,
            Purpose::Envelope => self.envelope,
            Purpose::Record | Purpose::Fingerprint | Purpose::Holder | Purpose::Audit => Span::default(),
        };
        now_s.saturating_add(span.needed_s).max(span.older_until_s)
    }

    fn keep(&self, store: &Store) -> Result<(), StoreError> {
        // Structs with string keys: there is nothing to fail.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        if store.note(NOTE)?.is_some_and(|known| known == bytes) {
            return Ok(());
        }
        store.put_note_now(NOTE, &bytes)
    }
}

impl Span {
    /// This one, where what is made from `now_s` on needs its key for `needed_s`.
    fn then(self, needed_s: u64, now_s: u64) -> Self {
        let older_until_s = if needed_s < self.needed_s {
            self.older_until_s.max(now_s.saturating_add(self.needed_s))
        } else {
            self.older_until_s
        };
        Self { needed_s, older_until_s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_before_a_change_is_not_cut_short() {
        let until = |span: Span, now_s| {
            Lifetimes { jwt: span, envelope: Span::default() }.needed_until_s(Purpose::Jwt, now_s)
        };
        let long = Span::default().then(3_600, 1_000);
        assert_eq!(until(long, 1_000), 4_600, "nothing was made before");
        let short = long.then(10, 2_000);
        assert_eq!(until(short, 2_000), 5_600);
        assert_eq!(until(short.then(10, 3_000), 3_000), 5_600, "another start changes nothing");
        assert_eq!(until(short.then(20, 3_000).then(10, 3_000), 3_000), 5_600);
        assert_eq!(until(short, 5_591), 5_601, "the old time is over");
        assert_eq!(until(short.then(3_600, 5_591), 5_591), 9_191);
    }
}
