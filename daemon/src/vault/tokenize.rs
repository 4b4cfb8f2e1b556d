//! Tokenize: a card in, a token out.

use futures_util::future::join_all;
use vault_api::{Metadata, Sensitive};
use zeroize::Zeroizing;

use super::{
    Reuse, Template, Token, Vault, VaultError,
    card_sealing::{Private, Sealing, card_text},
    mint::mint,
    now_ms, now_s,
    vetting::{vet_expires_in, vet_holder, vet_metadata},
};
use crate::{
    card::{CardExpiry, Masked, Pan, PanError},
    store::{FINGERPRINT_CUT_BYTES, FingerprintKey, Header, HolderKey, Inserted, NewRecord, StoreError},
};

/// How often a new token is drawn before the template's numbers count as used up. At a half-full space all of them
/// are taken once in four thousand million cards.
const MAX_MINT_ATTEMPTS: usize = 32;
/// Cards that are fingerprinted, sealed and committed together. The parts of a larger batch overlap: while one is
/// committed, the next is sealed.
const PART_CARDS: usize = 250;

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
struct Pending<'v> {
    place: usize,
    card: NewCard,
    template: &'v Template,
    key: FingerprintKey,
    holder: Option<HolderKey>,
}

impl Vault {
    /// A token for each card, in order. A card that was seen before keeps its token where the template says so.
    ///
    /// Each card has its own error; one that concerns the HSM or the store says that this card has no new token.
    pub async fn tokenize(
        &self,
        tenant: &str,
        mut cards: Vec<NewCard>,
    ) -> Vec<Result<Tokenized, VaultError>> {
        if cards.len() <= PART_CARDS {
            return self.tokenize_part(tenant, cards).await;
        }
        let mut parts = Vec::new();
        while !cards.is_empty() {
            let rest = cards.split_off(PART_CARDS.min(cards.len()));
            parts.push(self.tokenize_part(tenant, std::mem::replace(&mut cards, rest)));
        }
        join_all(parts).await.into_iter().flatten().collect()
    }

    async fn tokenize_part(&self, tenant: &str, cards: Vec<NewCard>) -> Vec<Result<Tokenized, VaultError>> {
        let mut results = Vec::with_capacity(cards.len());
        let mut pending = self.vetted(cards, &mut results);
        let mut failure = self.settle_seen(tenant, &mut pending, &mut results).await.err();
        for _ in 0..MAX_MINT_ATTEMPTS {
            if pending.is_empty() || failure.is_some() {
                break;
            }
            failure = self.settle_new(tenant, &mut pending, &mut results).await.err();
        }
        let failure = failure.unwrap_or(VaultError::TokenSpaceExhausted);
        for item in pending {
            settle(&mut results, item.place, Err(failure.clone()));
        }
        results
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
                    let key = FingerprintKey {
                        version: self.keys.fingerprint.version,
                        fingerprint: [0; FINGERPRINT_CUT_BYTES],
                        template: name.to_owned(),
                    };
                    pending.push(Pending { place, card, template, key, holder: None });
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
        if let Some(holder) = &card.holder {
            vet_holder(holder.expose(), &card.pan)?;
        }
        vet_metadata(&card.metadata, &card.pan)?;
        if let Some(seconds) = card.expires_in_s {
            vet_expires_in(seconds)?;
        }
        Ok((name, template))
    }

    /// Fingerprints the cards, and answers those whose token is in the store already.
    async fn settle_seen(
        &self,
        tenant: &str,
        pending: &mut Vec<Pending<'_>>,
        results: &mut [Result<Tokenized, VaultError>],
    ) -> Result<(), VaultError> {
        let messages = pending.iter().map(|item| fingerprint_message(tenant, &item.card.pan)).collect();
        let fingerprints = self.hsm.mac(self.keys.fingerprint, messages).await?;
        for (item, fingerprint) in pending.iter_mut().zip(&fingerprints) {
            if let Some(cut) = fingerprint.first_chunk() {
                item.key.fingerprint = *cut;
            }
        }
        let reusing = |item: &Pending<'_>| item.template.reuse == Reuse::Tenant;
        let keys: Vec<_> = pending.iter().filter(|item| reusing(item)).map(|item| item.key.clone()).collect();
        let mut found = self.store.find(tenant, &keys)?.into_iter();
        let now_s = now_s();
        pending.retain(|item| {
            let seen = if reusing(item) { found.next().unwrap_or(Ok(None)) } else { Ok(None) };
            let seen = seen.map(|seen| seen.filter(|(_, record)| !record.header.expired(now_s)));
            let answer = match seen {
                Ok(None) => return true,
                Ok(Some((key, record))) => tokenized(Token::from_key(&key), item, record.header, false),
                Err(error) => Err(error.into()),
            };
            settle(results, item.place, answer);
            false
        });
        Ok(())
    }

    /// Mints, seals and stores; the cards whose new token was taken stay in `pending`.
    async fn settle_new(
        &self,
        tenant: &str,
        pending: &mut Vec<Pending<'_>>,
        results: &mut [Result<Tokenized, VaultError>],
    ) -> Result<(), VaultError> {
        self.hash_holders(tenant, pending).await?;
        let now_ms = now_ms();
        let mut fresh = Vec::with_capacity(pending.len());
        let mut sealings = Vec::with_capacity(pending.len());
        let mut requests = Vec::with_capacity(pending.len());
        for item in pending.iter() {
            let token = mint(&self.hsm, item.template.format, &item.card.pan).await?;
            let header = self.header(item, now_ms);
            fresh.push(tokenized(Some(token), item, header.clone(), true));
            let card = card_text(&item.card.pan, item.card.expiry.as_ref());
            let (sealing, mut parts) = Sealing::requests(header, tenant, &token, card, item.private_text())?;
            sealings.push((token, sealing));
            requests.append(&mut parts);
        }
        let mut sealed = self.seal(requests).await?.into_iter();
        let records = sealings
            .into_iter()
            .map(|(token, sealing)| {
                Ok(NewRecord { token: token.key(), record: sealing.record(&mut sealed)? })
            })
            .collect::<Result<Vec<_>, VaultError>>()?;
        let outcomes = self.store.insert(tenant, records, now_ms / 1_000).await?;

        let mut outcomes = outcomes.into_iter().zip(fresh);
        pending.retain(|item| match outcomes.next() {
            Some((Inserted::Created, fresh)) => {
                settle(results, item.place, fresh);
                false
            }
            Some((Inserted::Seen(key, record), _)) => {
                settle(results, item.place, tokenized(Token::from_key(&key), item, record.header, false));
                false
            }
            Some((Inserted::Damaged(error), _)) => {
                settle(results, item.place, Err(StoreError::from(error).into()));
                false
            }
            Some((Inserted::TokenTaken, _)) | None => true,
        });
        Ok(())
    }

    /// Looks up the cards' holders, where they have any and a first try has not done so.
    async fn hash_holders(&self, tenant: &str, pending: &mut [Pending<'_>]) -> Result<(), VaultError> {
        let items: Vec<_> =
            pending.iter_mut().filter(|item| item.card.holder.is_some() && item.holder.is_none()).collect();
        if items.is_empty() {
            return Ok(());
        }
        let names = items.iter().filter_map(|item| Some(item.card.holder.as_ref()?.expose()));
        let keys = self.holder_keys(tenant, names).await?;
        for (item, key) in items.into_iter().zip(keys) {
            item.holder = Some(key);
        }
        Ok(())
    }

    fn header(&self, item: &Pending<'_>, now_ms: u64) -> Header {
        let masked = item.card.pan.masked();
        let lifetime_s =
            item.card.expires_in_s.or(item.template.expires_in.map(|lifetime| lifetime.as_secs()));
        Header {
            key_version: self.keys.record.version,
            fingerprint_version: item.key.version,
            fingerprint: item.key.fingerprint,
            reusable: item.template.reuse == Reuse::Tenant,
            bin: masked.bin_number(),
            last4: u16::try_from(masked.last4_number()).unwrap_or(u16::MAX),
            pan_digits: u8::try_from(masked.pan_digits()).unwrap_or(u8::MAX),
            created_at_ms: now_ms,
            expires_at_s: lifetime_s.map(|seconds| now_ms / 1_000 + seconds),
            template: item.key.template.clone(),
            holder: item.holder,
        }
    }
}

impl Pending<'_> {
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

fn settle(
    results: &mut [Result<Tokenized, VaultError>],
    place: usize,
    result: Result<Tokenized, VaultError>,
) {
    if let Some(slot) = results.get_mut(place) {
        *slot = result;
    }
}

/// What is shown of the PAN comes from the request: a record that is not opened is not authenticated.
fn tokenized(
    token: Option<Token>,
    item: &Pending<'_>,
    header: Header,
    created: bool,
) -> Result<Tokenized, VaultError> {
    Ok(Tokenized {
        token: token.ok_or(VaultError::RecordForged)?,
        created,
        masked: item.card.pan.masked(),
        template: header.template,
        created_at_ms: header.created_at_ms,
        expires_at_s: header.expires_at_s,
    })
}

/// What a record shows of its PAN.
pub(super) fn masked(header: &Header) -> Result<Masked, VaultError> {
    Masked::new(header.bin, header.last4.into(), header.pan_digits.into())
        .ok_or(crate::store::RecordError::Field("mask"))
        .map_err(|error| VaultError::Store(StoreError::Damaged(error)))
}
