//! Tokenize: a card in, a token out.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, SemaphorePermit};
use vault_api::{Metadata, Sensitive};
use zeroize::Zeroizing;

use super::{
    KeyView, Reuse, Template, Token, Vault, VaultError,
    card_sealing::{Private, Sealing, card_text},
    mint::mint,
    now_ms,
    seen::Sought,
    vetting::{vet_expires_in, vet_holder, vet_metadata, vet_metadata_beside},
};
use crate::{
    card::{CardExpiry, Masked, Pan, PanError},
    store::{BlindKey, FINGERPRINT_CUT_BYTES, FingerprintKey, Header, Inserted, NewRecord, StoreError},
};

/// How often a new token is drawn before the template's numbers count as used up. At a half-full space all of them
/// are taken once in four thousand million cards.
const MAX_MINT_ATTEMPTS: usize = 32;
/// Cards that are fingerprinted and sealed together. The fewer, the sooner the store has something to do.
const PART_CARDS: usize = 64;
/// Parts of a larger batch that the HSM has at once: while one is looked up, another is fingerprinted or sealed. With all of
/// them, it would fingerprint the last before it sealed the first, and the store wait for that. Parts that are
/// sealed wait for the store together: what comes during a commit is the next.
const PARTS_AT_THE_HSM: usize = 2;

/// A card that is to get a token.
pub struct NewCard {
    /// The PAN.
    pub pan: Pan,
    /// Name of the template; the default one if `None`.
    pub template: Option<String>,
    /// The card holder's name.
    pub holder: Option<Sensitive>,
    /// The card's expiry date.
    pub expiry: Option<CardExpiry>,
    /// Lifetime of the token in seconds; the template's if `None`.
    pub expires_in_s: Option<u64>,
    /// What the caller wants to remember.
    pub metadata: Metadata,
}

/// A card's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenized {
    /// The token.
    pub token: Token,
    /// Whether it was made just now.
    pub created: bool,
    /// What may be shown of the PAN.
    pub masked: Masked,
    /// The template it was made with.
    pub template: String,
    /// When it was made, in milliseconds of Unix time.
    pub created_at_ms: u64,
    /// When it ends, in seconds of Unix time.
    pub expires_at_s: Option<u64>,
}

/// A card on its way through, with what is known about it.
pub(super) struct Pending<'v> {
    pub(super) place: usize,
    pub(super) card: NewCard,
    name: &'v str,
    template: &'v Template,
    /// Its fingerprints: under the active key, then under those that are retired.
    keys: Vec<FingerprintKey>,
    holder: Option<BlindKey>,
}

impl Vault {
    /// A token for each card, in order. A card that was seen before keeps its token where the template says so.
    ///
    /// Each card has its own error; one that concerns the HSM or the store says that this card has no new token.
    pub async fn tokenize(&self, tenant: &str, cards: Vec<NewCard>) -> Vec<Result<Tokenized, VaultError>> {
        let turns = Semaphore::new(PARTS_AT_THE_HSM);
        if cards.len() <= PART_CARDS {
            return self.tokenize_part(&turns, tenant, cards).await;
        }
        let mut rest = cards.into_iter();
        let parts = std::iter::from_fn(|| {
            let part: Vec<_> = rest.by_ref().take(PART_CARDS).collect();
            (!part.is_empty()).then(|| self.tokenize_part(&turns, tenant, part))
        });
        join_all(parts).await.into_iter().flatten().collect()
    }

    async fn tokenize_part(
        &self,
        turns: &Semaphore,
        tenant: &str,
        cards: Vec<NewCard>,
    ) -> Vec<Result<Tokenized, VaultError>> {
        let mut results = Vec::with_capacity(cards.len());
        let pending = self.vetted(cards, &mut results);
        self.settle_all(turns, tenant, pending, &mut results).await;
        results
    }

    /// Answers every card of `pending` in its place of `results`, with one of `turns` while the HSM is needed.
    pub(super) async fn settle_all(
        &self,
        turns: &Semaphore,
        tenant: &str,
        mut pending: Vec<Pending<'_>>,
        results: &mut [Result<Tokenized, VaultError>],
    ) {
        let mut failure = VaultError::TokenSpaceExhausted;
        let mut looked_under = None;
        for _ in 0..MAX_MINT_ATTEMPTS {
            if pending.is_empty() {
                break;
            }
            let keys = self.keys.view();
            // Nobody closes it.
            let turn = turns.acquire().await.ok();
            let tried = self.settle(turn, &keys, &mut looked_under, tenant, &mut pending, results).await;
            match tried {
                Ok(()) => {}
                Err(error) if self.keys.moved_on(&error) => failure = error,
                Err(error) => {
                    failure = error;
                    break;
                }
            }
        }
        for item in pending {
            settle(results, item.place, Err(failure.clone()));
        }
    }

    /// One try: answers cards that were seen before, unless that was `looked_under` the same keys, and stores the others.
    async fn settle(
        &self,
        turn: Option<SemaphorePermit<'_>>,
        keys: &Arc<KeyView>,
        looked_under: &mut Option<Arc<KeyView>>,
        tenant: &str,
        pending: &mut Vec<Pending<'_>>,
        results: &mut [Result<Tokenized, VaultError>],
    ) -> Result<(), VaultError> {
        if !looked_under.as_ref().is_some_and(|under| Arc::ptr_eq(under, keys)) {
            self.settle_known(keys, tenant, pending, results).await?;
            *looked_under = Some(Arc::clone(keys));
        }
        if pending.is_empty() { Ok(()) } else { self.settle_new(turn, keys, tenant, pending, results).await }
    }

    /// The cards that pass; `results` gets the errors of the others, and a place for each that passes.
    fn vetted(
        &self,
        cards: Vec<NewCard>,
        results: &mut Vec<Result<Tokenized, VaultError>>,
    ) -> Vec<Pending<'_>> {
        let mut pending = Vec::with_capacity(cards.len());
        for (place, card) in cards.into_iter().enumerate() {
            match self.vet(&card) {
                Ok((name, template)) => {
                    pending.push(Pending::new(place, card, name, template));
                    results.push(Err(VaultError::TokenSpaceExhausted));
                }
                Err(error) => results.push(Err(error)),
            }
        }
        pending
    }

    fn vet(&self, card: &NewCard) -> Result<(&str, &Template), VaultError> {
        let (name, template) = self.templates.select(card.template.as_deref())?;
        if template.require_luhn && !card.pan.luhn_valid() {
            return Err(PanError::CheckDigit.into());
        }
        let masked = card.pan.masked();
        if let Some(holder) = &card.holder {
            vet_holder(holder.expose(), &masked)?;
        }
        vet_metadata(&card.metadata)?;
        vet_metadata_beside(&card.metadata, &masked)?;
        if let Some(seconds) = card.expires_in_s {
            vet_expires_in(seconds)?;
        }
        Ok((name, template))
    }

    /// Fingerprints the cards, and answers those whose token is in the store already.
    async fn settle_known(
        &self,
        keys: &KeyView,
        tenant: &str,
        pending: &mut Vec<Pending<'_>>,
        results: &mut [Result<Tokenized, VaultError>],
    ) -> Result<(), VaultError> {
        let sought = pending.iter().map(|item| {
            let (template, reuse) = (item.name.to_owned(), item.template.reuse);
            (fingerprint_message(tenant, &item.card.pan), Sought { template, reuse })
        });
        let found = self.look_up(keys, tenant, sought.collect()).await?;
        for (mut item, found) in std::mem::take(pending).into_iter().zip(found) {
            (item.keys, item.holder) = (found.keys, None);
            match found.known {
                Ok(None) => pending.push(item),
                Ok(Some(known)) => pending.extend(self.settle_seen(tenant, item, known, results).await),
                Err(error) => settle(results, item.place, Err(error)),
            }
        }
        Ok(())
    }

    /// Mints, seals and stores; the cards whose new token was taken stay in `pending`.
    async fn settle_new(
        &self,
        turn: Option<SemaphorePermit<'_>>,
        keys: &KeyView,
        tenant: &str,
        pending: &mut Vec<Pending<'_>>,
        results: &mut [Result<Tokenized, VaultError>],
    ) -> Result<(), VaultError> {
        self.hash_holders(keys, tenant, pending).await?;
        let now_ms = now_ms();
        let mut fresh = Vec::with_capacity(pending.len());
        let mut sealings = Vec::with_capacity(pending.len());
        let mut requests = Vec::with_capacity(pending.len());
        for item in pending.iter() {
            let token = mint(&self.hsm, item.template.format, &item.card.pan).await?;
            let header = header(keys, item, now_ms)?;
            fresh.push(tokenized(token, item, header.clone(), true));
            let card = card_text(&item.card.pan, item.card.expiry.as_ref());
            let (sealing, mut parts) = Sealing::requests(header, tenant, &token, card, item.private_text())?;
            sealings.push((token, sealing, item.keys.get(1..).unwrap_or_default().to_vec()));
            requests.append(&mut parts);
        }
        let mut sealed = self.seal(keys.record, requests).await?.into_iter();
        drop(turn);
        let records = sealings
            .into_iter()
            .map(|(token, sealing, older)| {
                Ok(NewRecord { token: token.key(), record: sealing.record(&mut sealed)?, older })
            })
            .collect::<Result<Vec<_>, VaultError>>()?;
        let outcomes = self.store.insert(tenant, records, now_ms / 1_000).await?;

        let stale = outcomes.contains(&Inserted::Stale);
        let mut seen = Vec::new();
        for (item, (outcome, fresh)) in
            std::mem::take(pending).into_iter().zip(outcomes.into_iter().zip(fresh))
        {
            match outcome {
                Inserted::Created => settle(results, item.place, Ok(fresh)),
                Inserted::Seen(key, record) => seen.push((item, key, record)),
                Inserted::Damaged(error) => settle(results, item.place, Err(StoreError::from(error).into())),
                Inserted::TokenTaken | Inserted::Stale => pending.push(item),
            }
        }
        pending.append(&mut self.settle_raced(tenant, seen, results).await);
        if stale { Err(VaultError::KeysChanged) } else { Ok(()) }
    }

    /// Looks up the cards' holders, where they have any and a first try has not done so.
    async fn hash_holders(
        &self,
        keys: &KeyView,
        tenant: &str,
        pending: &mut [Pending<'_>],
    ) -> Result<(), VaultError> {
        let items: Vec<_> =
            pending.iter_mut().filter(|item| item.card.holder.is_some() && item.holder.is_none()).collect();
        let names = items.iter().filter_map(|item| Some((tenant, item.card.holder.as_ref()?.expose())));
        let key = keys.holder().ok_or(VaultError::KeysChanged)?;
        let hashes = self.holder_keys(key, names).await?;
        for (item, key) in items.into_iter().zip(hashes) {
            item.holder = Some(key);
        }
        Ok(())
    }
}

fn header(keys: &KeyView, item: &Pending<'_>, now_ms: u64) -> Result<Header, VaultError> {
    let key = item.keys.first().ok_or(VaultError::KeysChanged)?;
    let masked = item.card.pan.masked();
    let lifetime_s = item.card.expires_in_s.or(item.template.expires_in.map(|lifetime| lifetime.as_secs()));
    Ok(Header {
        key_version: keys.record.version,
        fingerprint_version: key.version,
        fingerprint: key.fingerprint,
        reusable: item.template.reuse == Reuse::Tenant,
        bin: masked.bin_number(),
        last4: u16::try_from(masked.last4_number()).unwrap_or(u16::MAX),
        pan_digits: u8::try_from(masked.pan_digits()).unwrap_or(u8::MAX),
        created_at_ms: now_ms,
        expires_at_s: lifetime_s.map(|seconds| now_ms / 1_000 + seconds),
        template: item.name.to_owned(),
        holder: item.holder,
    })
}

impl<'v> Pending<'v> {
    pub(super) fn new(place: usize, card: NewCard, name: &'v str, template: &'v Template) -> Self {
        Self { place, card, name, template, keys: Vec::new(), holder: None }
    }

    fn private_text(&self) -> Option<Zeroizing<Vec<u8>>> {
        let holder = self.card.holder.as_ref().map(|holder| Sensitive::from(holder.expose()));
        Private { holder, metadata: self.card.metadata.clone() }.text()
    }
}

/// What a PAN's fingerprint is made of: a name for the use, the tenant, the digits. So the same PAN has unrelated
/// fingerprints in two tenants, and none that is good for anything else.
pub(super) fn fingerprint_message(tenant: &str, pan: &Pan) -> Zeroizing<Vec<u8>> {
    const USE: &[u8] = b"vaultd pan v1\0";
    let mut message = Zeroizing::new(Vec::with_capacity(USE.len() + tenant.len() + 1 + pan.digits().len()));
    message.extend_from_slice(USE);
    message.extend_from_slice(tenant.as_bytes());
    message.push(0);
    message.extend_from_slice(pan.digits());
    message
}

/// The part of a keyed hash that indexes keep.
pub(super) fn cut(mac: &[u8]) -> [u8; FINGERPRINT_CUT_BYTES] {
    mac.first_chunk().copied().unwrap_or_default()
}

pub(super) fn settle(
    results: &mut [Result<Tokenized, VaultError>],
    place: usize,
    result: Result<Tokenized, VaultError>,
) {
    if let Some(slot) = results.get_mut(place) {
        *slot = result;
    }
}

pub(super) fn tokenized(token: Token, item: &Pending<'_>, header: Header, created: bool) -> Tokenized {
    Tokenized {
        token,
        created,
        masked: item.card.pan.masked(),
        template: header.template,
        created_at_ms: header.created_at_ms,
        expires_at_s: header.expires_at_s,
    }
}

/// What a record shows of its PAN.
pub(super) fn masked(header: &Header) -> Result<Masked, VaultError> {
    Masked::new(header.bin, header.last4.into(), header.pan_digits.into())
        .ok_or(crate::store::RecordError::Field("mask"))
        .map_err(|error| VaultError::Store(StoreError::Damaged(error)))
}
