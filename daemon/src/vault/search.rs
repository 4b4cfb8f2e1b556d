//! Search: the records of a holder or of a card, a page at a time.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::{
    KeyView, RecordView, Token, Vault, VaultError, now_s,
    records::MAX_ATTEMPTS,
    tokenize::{cut, fingerprint_message},
    vetting::vet_name,
};
use crate::{
    card::{MAX_PAN_DIGITS, Pan},
    store::{BlindKey, Hit, Lookup, Record, TokenKey},
};

/// The longest position in an index: a template's name and a token.
const MAX_POSITION_BYTES: usize = 128;
/// Rows that are looked at together once the first, as many as the page is to have, were not enough.
const STRETCH: usize = 250;
/// A page ends early after so many stretches: who searches where nearly all has ended is to hold up nobody.
const MOST_STRETCHES: usize = 8;

/// What to search for; at least one of the two.
#[derive(Clone, Copy, Default)]
pub struct Search<'s> {
    /// The card holder's name.
    pub holder: Option<&'s str>,
    /// The PAN.
    pub pan: Option<&'s Pan>,
    /// Where the page before this one stopped.
    pub cursor: Option<&'s str>,
}

/// A page of records.
#[derive(Debug, Default)]
pub struct Page {
    /// The records: fewer than were asked for, or none, where much was looked at in vain.
    pub records: Vec<RecordView>,
    /// Where the next page starts, if there may be one.
    pub cursor: Option<String>,
}

impl Vault {
    /// Up to `limit` live records of `tenant` that fit `search`.
    ///
    /// # Errors
    /// [`VaultError::Request`] for a search for nothing or a cursor that is none.
    pub async fn search(&self, tenant: &str, search: Search<'_>, limit: usize) -> Result<Page, VaultError> {
        for _ in 1..MAX_ATTEMPTS {
            let keys = self.keys.view();
            match self.search_under(&keys, tenant, search, limit).await {
                Err(error) if self.keys.moved_on(&error) => {}
                // A record may have gone to a key since that was not looked under.
                page if self.keys.view().searches_as(&keys) => return page,
                _ => {}
            }
        }
        self.search_under(&self.keys.view(), tenant, search, limit).await
    }

    async fn search_under(
        &self,
        keys: &KeyView,
        tenant: &str,
        search: Search<'_>,
        limit: usize,
    ) -> Result<Page, VaultError> {
        let lookups = self.lookups(keys, tenant, &search).await?;
        let [first, others @ ..] = lookups.as_slice() else {
            return Err(VaultError::Request("give holder, pan or both".to_owned()));
        };
        let mut position = search.cursor.map(decode_cursor).transpose()?.unwrap_or_default();
        let now_s = now_s();
        let mut page = Page::default();
        let mut rows = limit;
        for _ in 0..MOST_STRETCHES {
            let hits = self.store.search(tenant, first, &position, rows)?;
            let last = hits.len() < rows;
            let mut hits = hits.into_iter();
            while page.records.len() < limit
                && let Some(Hit { position: at, token, record }) = hits.next()
            {
                position = at;
                let fits = others.iter().all(|other| record.fits(other));
                if record.header.expired(now_s) || !fits || self.honey.contains(tenant, &token) {
                    continue;
                }
                page.records.extend(self.sound(tenant, &token, record).await?);
            }
            if last && hits.len() == 0 {
                return Ok(page);
            }
            if page.records.len() >= limit {
                break;
            }
            rows = STRETCH;
            // Where all have ended nothing else here lets others have the thread.
            tokio::task::yield_now().await;
        }
        page.cursor = Some(URL_SAFE_NO_PAD.encode(position));
        Ok(page)
    }

    /// A record that was found; `None` for one that is damaged or has gone since, which is to cost the others nothing.
    pub(super) async fn sound(
        &self,
        tenant: &str,
        key: &TokenKey,
        record: Record,
    ) -> Result<Option<RecordView>, VaultError> {
        let view = match Token::from_key(key) {
            Some(token) => self.view(tenant, token, record).await,
            None => Err(VaultError::RecordForged),
        };
        match view {
            Ok(view) => Ok(Some(view)),
            Err(error @ VaultError::RecordForged) => {
                tracing::error!(%error, tenant, "a damaged record is left out of what was found");
                Ok(None)
            }
            Err(VaultError::UnknownToken | VaultError::TokenExpired) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether `token` stands for `pan`. The comparison takes the same time wherever the two differ.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn compare(&self, tenant: &str, token: Token, pan: &Pan) -> Result<bool, VaultError> {
        let opened =
            self.detokenize(tenant, vec![Ok(token)]).await.pop().unwrap_or(Err(VaultError::UnknownToken))?;
        let (known, given) = (padded(&opened.pan), padded(pan));
        Ok(verify_slices_are_equal(&known, &given).is_ok())
    }

    /// What to look up, the rarest first: a card has few tokens, a name may have many.
    async fn lookups(
        &self,
        keys: &KeyView,
        tenant: &str,
        search: &Search<'_>,
    ) -> Result<Vec<Lookup>, VaultError> {
        // What no card can have been given is nowhere.
        if search.holder.is_some_and(|holder| vet_name(holder).is_err()) {
            return Ok(vec![Lookup::Holder(Vec::new())]);
        }
        let mut lookups = Vec::new();
        if let Some(pan) = search.pan {
            let mut hashes = Vec::with_capacity(keys.fingerprints.len());
            for key in &keys.fingerprints {
                let macs = self.hsm.mac(*key, vec![fingerprint_message(tenant, pan)]).await?;
                hashes.extend(macs.iter().map(|mac| BlindKey { version: key.version, hash: cut(mac) }));
            }
            lookups.push(Lookup::Card(hashes));
        }
        if let Some(holder) = search.holder {
            let mut hashes = Vec::with_capacity(keys.holders.len());
            for key in &keys.holders {
                hashes.append(&mut self.holder_keys(*key, std::iter::once((tenant, holder))).await?);
            }
            lookups.push(Lookup::Holder(hashes));
        }
        Ok(lookups)
    }
}

/// A PAN in the size of the longest one; the rest is zero bytes, which no digit is. On the heap, as in [`Pan`].
fn padded(pan: &Pan) -> Zeroizing<Vec<u8>> {
    let mut padded = Zeroizing::new(vec![0; MAX_PAN_DIGITS]);
    for (place, digit) in padded.iter_mut().zip(pan.digits()) {
        *place = *digit;
    }
    padded
}

fn decode_cursor(cursor: &str) -> Result<Vec<u8>, VaultError> {
    let position = URL_SAFE_NO_PAD.decode(cursor).ok().filter(|bytes| bytes.len() <= MAX_POSITION_BYTES);
    position.ok_or_else(|| VaultError::Request("cursor must be one that a search gave".to_owned()))
}
