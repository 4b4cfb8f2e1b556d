//! Honey tokens: tokens that no honest caller uses, planted to notice one that is not.
//!
//! A honey token is an ordinary record of a number that is no card's, under a holder's name that no caller can give. So
//! no other token can equal it, and rewrapping, census and inspection need not know of it. Which tokens they are is kept in
//! memory; the index of holders says it at the start. Tokens and answers do not tell; the store's file does, to who
//! looks for many records of one holder that are not reusable and do not end (`docs/guards.md`).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arc_swap::ArcSwap;
use tokio::sync::Semaphore;
use vault_api::{Metadata, MetadataValue, Sensitive};
use zeroize::Zeroizing;

use super::{
    NewCard, RecordView, Reuse, Template, Token, Vault, VaultError,
    mint::fill_digits,
    tokenize::{Pending, cut},
    vetting::vet_words,
};
use crate::{
    card::{Pan, luhn_valid},
    store::{BlindKey, Lookup, TokenKey},
};

/// The holder of every honey token. Callers cannot give it: it begins with a control character.
const HOLDER: &str = "\u{1}honey";
const NOTE: &str = "note";
/// Honey tokens that can be planted: as many as the list of them has room for in the 8 MiB that clients read, whatever their
/// notes.
const MOST_HONEY: usize = 8_000;
const PAN_DIGITS: usize = 16;
/// What the made-up numbers begin with: as many cards do.
const FIRST_DIGIT: u8 = b'4';
/// Rows and tenants that are looked at together.
const AT_ONCE: usize = 250;

/// A honey token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoneyView {
    /// The token.
    pub token: Token,
    /// The tenant it is of.
    pub tenant: String,
    /// The template it was made with.
    pub template: String,
    /// Where it was put.
    pub note: Option<String>,
    /// When it was made, in milliseconds of Unix time.
    pub planted_at_ms: u64,
}

/// Which tokens are honey, by tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct Honey {
    by_tenant: Arc<ArcSwap<HashMap<String, HashSet<TokenKey>>>>,
}

impl Honey {
    pub(super) fn contains(&self, tenant: &str, token: &TokenKey) -> bool {
        let by_tenant = self.by_tenant.load();
        !by_tenant.is_empty() && by_tenant.get(tenant).is_some_and(|tokens| tokens.contains(token))
    }

    /// What to look up in place of `token`: something that is nowhere, if it is honey.
    pub(super) fn hidden(&self, tenant: &str, token: TokenKey) -> TokenKey {
        if self.contains(tenant, &token) { TokenKey::NONE } else { token }
    }

    fn is_empty(&self) -> bool {
        self.by_tenant.load().is_empty()
    }

    fn len(&self) -> usize {
        self.by_tenant.load().values().map(HashSet::len).sum()
    }

    fn all(&self) -> Vec<(String, TokenKey)> {
        let by_tenant = self.by_tenant.load();
        let all = by_tenant.iter().flat_map(|(tenant, tokens)| {
            tokens.iter().map(|token| (tenant.clone(), *token)).collect::<Vec<_>>()
        });
        all.collect()
    }

    fn change(&self, change: impl Fn(&mut HashMap<String, HashSet<TokenKey>>)) {
        self.by_tenant.rcu(|current| {
            let mut next = HashMap::clone(current);
            change(&mut next);
            next.retain(|_, tokens| !tokens.is_empty());
            next
        });
    }
}

impl Vault {
    /// Whether `token` of `tenant` is one that no honest caller uses. To callers it is an unknown one.
    pub fn is_honey(&self, tenant: &str, token: &Token) -> bool {
        !self.honey.is_empty() && self.honey.contains(tenant, &token.key())
    }

    /// Looks up which tokens are honey. Until then they would be taken for others.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn load_honey(&self) -> Result<(), VaultError> {
        for tenants in self.store.tenants().chunks(AT_ONCE) {
            let mut lookups = vec![Vec::new(); tenants.len()];
            for key in &self.keys.view().holders {
                let messages = tenants.iter().map(|tenant| super::holder::message(tenant, HOLDER)).collect();
                let macs = self.hsm.mac(*key, messages).await?;
                for (lookup, mac) in lookups.iter_mut().zip(&macs) {
                    lookup.push(BlindKey { version: key.version, hash: cut(mac) });
                }
            }
            for (tenant, keys) in tenants.iter().zip(lookups) {
                self.load_honey_of(tenant, &Lookup::Holder(keys))?;
            }
        }
        Ok(())
    }

    fn load_honey_of(&self, tenant: &str, lookup: &Lookup) -> Result<(), VaultError> {
        let mut position = Vec::new();
        loop {
            let hits = self.store.search(tenant, lookup, &position, AT_ONCE)?;
            self.honey.change(|by_tenant| {
                by_tenant.entry(tenant.to_owned()).or_default().extend(hits.iter().map(|hit| hit.token));
            });
            match hits.last() {
                Some(last) if hits.len() >= AT_ONCE => position.clone_from(&last.position),
                _ => return Ok(()),
            }
        }
    }

    /// Makes a honey token of `tenant` that looks as those of `template` do.
    ///
    /// # Errors
    /// [`VaultError`]; [`VaultError::Request`] for a template that is not configured or a note that is too long.
    pub async fn plant(
        &self,
        tenant: &str,
        template: Option<&str>,
        note: Option<String>,
    ) -> Result<HoneyView, VaultError> {
        let (name, template) = self.templates.select(template)?;
        if let Some(note) = &note {
            vet_words("note", note)?;
        }
        if self.honey.len() >= MOST_HONEY {
            return Err(VaultError::Request(format!(
                "there are {MOST_HONEY} honey tokens, which is the most"
            )));
        }
        // Nobody's card may come to have it, and it does not end.
        let template = Template { reuse: Reuse::Never, expires_in: None, ..template.clone() };
        let noted = note.clone().map(|note| (NOTE.to_owned(), MetadataValue::Text(note)));
        let card = NewCard {
            pan: self.no_cards_number().await?,
            template: Some(name.to_owned()),
            holder: Some(Sensitive::from(HOLDER)),
            expiry: None,
            expires_in_s: None,
            metadata: Metadata(noted.into_iter().collect()),
        };
        let mut results = vec![Err(VaultError::TokenSpaceExhausted)];
        let turns = Semaphore::new(1);
        self.settle_all(&turns, tenant, vec![Pending::new(0, card, name, &template)], &mut results).await;
        let made = results.pop().unwrap_or(Err(VaultError::TokenSpaceExhausted))?;
        self.honey.change(|by_tenant| {
            by_tenant.entry(tenant.to_owned()).or_default().insert(made.token.key());
        });
        Ok(HoneyView {
            token: made.token,
            tenant: tenant.to_owned(),
            template: made.template,
            note,
            planted_at_ms: made.created_at_ms,
        })
    }

    /// Every honey token, by tenant and time.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn honey(&self) -> Result<Vec<HoneyView>, VaultError> {
        let mut views = Vec::new();
        for (tenant, key) in self.honey.all() {
            let Some(view) = self.honey_record(&tenant, key).await? else { continue };
            let note = view.metadata.0.get(NOTE).and_then(|note| match note {
                MetadataValue::Text(note) => Some(note.clone()),
                MetadataValue::Bool(_) | MetadataValue::Number(_) => None,
            });
            let (token, template, planted_at_ms) = (view.token, view.template, view.created_at_ms);
            views.push(HoneyView { token, tenant, template, note, planted_at_ms });
        }
        views.sort_unstable_by(|a, b| (&a.tenant, a.planted_at_ms).cmp(&(&b.tenant, b.planted_at_ms)));
        Ok(views)
    }

    /// The record of a honey token; `None` if it has gone or is damaged, which is to hide no other.
    async fn honey_record(&self, tenant: &str, key: TokenKey) -> Result<Option<RecordView>, VaultError> {
        const MAX_ATTEMPTS: usize = 2;
        // Again, because it may have been rewrapped since it was read.
        for _ in 0..MAX_ATTEMPTS {
            let record = match self.store.get(tenant, &[key])?.pop().transpose() {
                Ok(Some(Some(record))) => record,
                Ok(_) => return Ok(None),
                Err(_) => break,
            };
            if let Some(view) = self.sound(tenant, &key, record).await? {
                return Ok(Some(view));
            }
        }
        tracing::error!(tenant, "a damaged record is left out of the honey tokens");
        Ok(None)
    }

    /// Removes a honey token.
    ///
    /// # Errors
    /// [`VaultError::UnknownToken`] if it is none.
    pub async fn dig_up(&self, tenant: &str, token: Token) -> Result<(), VaultError> {
        if !self.is_honey(tenant, &token) {
            return Err(VaultError::UnknownToken);
        }
        self.store.remove(tenant, token.key()).await?;
        // Not before: it would be taken for another.
        self.honey.change(|by_tenant| {
            if let Some(tokens) = by_tenant.get_mut(tenant) {
                tokens.remove(&token.key());
            }
        });
        Ok(())
    }

    /// A number in a PAN's form whose check digit is wrong.
    async fn no_cards_number(&self) -> Result<Pan, VaultError> {
        let mut digits = Zeroizing::new([FIRST_DIGIT; PAN_DIGITS]);
        loop {
            if let Some((_, drawn)) = digits.split_first_mut() {
                fill_digits(&self.hsm, drawn).await?;
            }
            if !luhn_valid(digits.as_slice()) {
                return Ok(Pan::parse(std::str::from_utf8(digits.as_slice()).unwrap_or_default())?);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::vetting::vet_name;

    #[test]
    fn no_caller_can_give_the_holder_of_honey() {
        assert!(vet_name(HOLDER).is_err());
    }

    #[test]
    fn honey_is_hidden_and_nothing_else_is() {
        let honey = Honey::default();
        let (honeyed, other) = (TokenKey::new(b"u1").unwrap(), TokenKey::new(b"u2").unwrap());
        honey.change(|by_tenant| {
            by_tenant.entry("a".to_owned()).or_default().insert(honeyed);
        });
        assert_eq!(honey.hidden("a", honeyed), TokenKey::NONE);
        assert_eq!(honey.hidden("a", other), other);
        assert_eq!(honey.hidden("b", honeyed), honeyed);
        assert_eq!(honey.all(), [("a".to_owned(), honeyed)]);
    }
}
