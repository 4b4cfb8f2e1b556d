//! One small step of the rewrap: a few records, opened and sealed anew.

use zeroize::Zeroizing;

use super::RECORDS_AT_ONCE;
use crate::{
    card::{CardExpiry, Pan},
    store::{BlindKey, Place, Record, Replaced, RewrapJob, Rewrapped},
    vault::{
        KeyView, Token, Vault, VaultError,
        card_sealing::{Part, Private, Sealing, card_text, open_request, parse_card_text, parse_private},
        tokenize::{cut, fingerprint_message},
    },
};

/// Records that are looked at together for some that are not current.
const RECORDS_SEEN_AT_ONCE: usize = 4_096;

/// What one step came to.
pub(super) struct Step {
    pub(super) job: RewrapJob,
    /// Records that were not current.
    pub(super) looked_at: usize,
    /// Whether any of them was replaced, or changed by somebody else.
    pub(super) moved: bool,
    /// Whether the table ends here.
    pub(super) last: bool,
}

/// What a record's card and private part are.
struct Opened {
    pan: Pan,
    expiry: Option<CardExpiry>,
    private: Private,
}

impl Vault {
    /// One small step: a few records that are not current, and how far that brings the job.
    pub(super) async fn rewrap_some(&self, keys: &KeyView, job: &RewrapJob) -> Result<Step, VaultError> {
        let stretch =
            self.store.stretch(&job.position, RECORDS_AT_ONCE, RECORDS_SEEN_AT_ONCE, |versions| {
                !keys.is_current(versions)
            })?;
        let looked_at = stretch.places.len();
        let (fresh, failed) = self.rewrapped(keys, stretch.places).await?;
        let mut job = job.clone();
        job.position = stretch.position;
        job.failed += failed;
        let (replaced, job) = self.store.rewrap(fresh, job).await?;
        if replaced.contains(&Replaced::Stale) {
            self.keys.refresh()?;
        }
        let moved = replaced.iter().any(|replaced| *replaced != Replaced::Gone);
        Ok(Step { job, looked_at, moved, last: stretch.last })
    }

    /// The records of `places` as they are to be, and how many cannot be opened.
    async fn rewrapped(
        &self,
        keys: &KeyView,
        places: Vec<Place>,
    ) -> Result<(Vec<Rewrapped>, u64), VaultError> {
        let mut failed = 0;
        let mut found = Vec::with_capacity(places.len());
        for Place { tenant, token, record } in places {
            match (Token::from_key(&token), record) {
                (Some(token), Ok(record)) => found.push((tenant, token, record)),
                _ => failed += 1,
            }
        }
        let opened = self.open_all(&found).await?;
        let mut items: Vec<((String, Token, Record), Opened)> = Vec::with_capacity(found.len());
        for (place, opened) in found.into_iter().zip(opened) {
            match opened {
                Some(opened) => items.push((place, opened)),
                None => failed += 1,
            }
        }
        let fingerprints = self.fingerprints_of(keys, &items).await?;
        let holders = self.holders_of(keys, &items).await?;
        let mut sealings = Vec::with_capacity(items.len());
        let mut requests = Vec::with_capacity(items.len());
        for ((((tenant, token, old), opened), fingerprint), holder) in
            items.into_iter().zip(fingerprints).zip(holders)
        {
            let mut header = old.header.clone();
            header.key_version = keys.record.version;
            header.fingerprint_version = fingerprint.version;
            header.fingerprint = fingerprint.hash;
            header.holder = holder;
            let card = card_text(&opened.pan, opened.expiry.as_ref());
            let (sealing, mut parts) =
                Sealing::requests(header, &tenant, &token, card, opened.private.text())?;
            requests.append(&mut parts);
            sealings.push((tenant, token, old, sealing));
        }
        let mut sealed = self.seal(keys.record, requests).await?.into_iter();
        let fresh = sealings.into_iter().map(|(tenant, token, old, sealing)| {
            Ok(Rewrapped { tenant, token: token.key(), old, new: sealing.record(&mut sealed)? })
        });
        Ok((fresh.collect::<Result<_, VaultError>>()?, failed))
    }

    /// Opens both parts of each record; `None` where one does not open.
    async fn open_all(&self, places: &[(String, Token, Record)]) -> Result<Vec<Option<Opened>>, VaultError> {
        let requests = places.iter().flat_map(|(tenant, token, record)| {
            [Part::Card, Part::Private]
                .into_iter()
                .filter_map(|part| open_request(part, tenant, token, record.clone()))
        });
        let mut texts = self.hsm.open_sealed(requests.collect()).await?.into_iter();
        let opened = places.iter().map(|(_, _, record)| {
            let card = texts.next().flatten().and_then(|text| parse_card_text(&text));
            let private = match &record.private {
                Some(_) => texts.next().and_then(|text| parse_private(text).ok()),
                None => Some(Private::default()),
            };
            let ((pan, expiry), private) = card.zip(private)?;
            Some(Opened { pan, expiry, private })
        });
        Ok(opened.collect())
    }

    async fn fingerprints_of(
        &self,
        keys: &KeyView,
        items: &[((String, Token, Record), Opened)],
    ) -> Result<Vec<BlindKey>, VaultError> {
        let key = keys.fingerprint().ok_or(VaultError::KeysChanged)?;
        let messages =
            items.iter().map(|((tenant, _, _), opened)| fingerprint_message(tenant, &opened.pan)).collect();
        let macs = self.hsm.mac(key, messages).await?;
        Ok(macs.iter().map(|mac| BlindKey { version: key.version, hash: cut(mac) }).collect())
    }

    /// A record that was made before holders could be looked up gets its hash now.
    async fn holders_of(
        &self,
        keys: &KeyView,
        items: &[((String, Token, Record), Opened)],
    ) -> Result<Vec<Option<BlindKey>>, VaultError> {
        let key = keys.holder().ok_or(VaultError::KeysChanged)?;
        let holder = |opened: &Opened| {
            opened.private.holder.as_ref().map(|holder| Zeroizing::new(holder.expose().to_owned()))
        };
        let holders: Vec<_> =
            items.iter().map(|((tenant, _, _), opened)| (tenant.as_str(), holder(opened))).collect();
        let given = holders.iter().filter_map(|(tenant, holder)| Some((*tenant, holder.as_ref()?.as_str())));
        let mut hashes = self.holder_keys(key, given).await?.into_iter();
        Ok(holders.iter().map(|(_, holder)| holder.as_ref().and_then(|_| hashes.next())).collect())
    }
}
