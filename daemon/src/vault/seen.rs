//! Cards that were seen before.
//!
//! Whoever hears of a token forgets the card. So the record that a fingerprint leads to is opened, and must hold that very
//! card: neither one that is damaged nor one of another card may answer.

use zeroize::Zeroizing;

use super::{
    KeyView, Reuse, Token, Vault, VaultError,
    card_sealing::{Part, open_request},
    detokenize::{Revealed, revealed},
    now_s,
    tokenize::{Pending, Tokenized, cut, settle, tokenized},
};
use crate::{
    hsm::{MAC_BYTES, OpenRequest},
    store::{FingerprintKey, Header, Record, Store, TokenKey},
};

/// A card that is looked for, without the card.
pub(super) struct Sought {
    /// Name of its template.
    pub(super) template: String,
    /// Whether that lets it keep a token.
    pub(super) reuse: Reuse,
}

/// What the vault has of a card.
pub(super) struct Found {
    /// Its fingerprints: under the active key, then under those that are retired.
    pub(super) keys: Vec<FingerprintKey>,
    /// The record that one of them leads to, if it has not ended.
    pub(super) known: Result<Option<Known>, VaultError>,
}

/// A record that is said to be some card's, and what came of opening it.
pub(super) struct Known {
    token: Token,
    header: Header,
    card: Result<Revealed, VaultError>,
}

/// A card's fingerprints, and the token and header of the record they lead to.
type Lead = (Vec<FingerprintKey>, Result<Option<(Token, Header)>, VaultError>);

impl Vault {
    /// What the vault has of each card, given by what its fingerprint is made of. Order is kept.
    pub(super) async fn look_up(
        &self,
        keys: &KeyView,
        tenant: &str,
        cards: Vec<(Zeroizing<Vec<u8>>, Sought)>,
    ) -> Result<Vec<Found>, VaultError> {
        let (store, tenant) = (self.store.clone(), tenant.to_owned());
        let versions: Vec<_> = keys.fingerprints.iter().map(|key| key.version).collect();
        let look_up = move |cards: Vec<(Sought, _)>| find(&store, &tenant, &versions, cards);
        let found = self.hsm.mac_then_open(keys.fingerprints.clone(), cards, look_up).await?;
        let with_card = |((keys, known), opened): (Lead, Option<_>)| {
            let known = known.map(|known| {
                known.map(|(token, header)| Known { token, header, card: revealed(opened.flatten()) })
            });
            Found { keys, known }
        };
        Ok(found.into_iter().map(with_card).collect())
    }

    /// Answers each of `seen` in its place of `results`: a card, and the record that another came to have meanwhile. Gives back
    /// those whose record is gone.
    pub(super) async fn settle_raced<'v>(
        &self,
        tenant: &str,
        seen: Vec<(Pending<'v>, TokenKey, Record)>,
        results: &mut [Result<Tokenized, VaultError>],
    ) -> Vec<Pending<'v>> {
        let mut found = Vec::with_capacity(seen.len());
        let mut items = Vec::with_capacity(seen.len());
        for (item, key, record) in seen {
            let token = Token::from_key(&key).ok_or(VaultError::RecordForged);
            items.push((item, token.clone(), record.header.clone()));
            found.push(token.map(|token| (token, record)));
        }
        let cards = self.open_cards(tenant, found).await;
        let mut gone = Vec::new();
        for ((item, token, header), card) in items.into_iter().zip(cards) {
            match token {
                Ok(token) => {
                    let known = Known { token, header, card };
                    gone.extend(self.settle_seen(tenant, item, known, results).await);
                }
                Err(error) => settle(results, item.place, Err(error)),
            }
        }
        gone
    }

    /// Answers `item` in its place of `results` with the token of `known`, if that holds its card. Gives it back if the record
    /// is gone.
    pub(super) async fn settle_seen<'v>(
        &self,
        tenant: &str,
        item: Pending<'v>,
        mut known: Known,
        results: &mut [Result<Tokenized, VaultError>],
    ) -> Option<Pending<'v>> {
        if matches!(known.card, Err(VaultError::RecordForged)) {
            // It may have been rewrapped or changed since it was read.
            match self.live_record(tenant, known.token) {
                Err(VaultError::UnknownToken | VaultError::TokenExpired) => return Some(item),
                Err(error) => known.card = Err(error),
                Ok(record) => {
                    known.header = record.header.clone();
                    let mut again = self.open_cards(tenant, vec![Ok((known.token, record))]).await;
                    known.card = again.pop().unwrap_or(Err(VaultError::RecordForged));
                }
            }
        }
        let result = match known.card {
            Ok(card) if card.pan.digits() == item.card.pan.digits() => {
                Ok(tokenized(known.token, &item, known.header, false))
            }
            Ok(_) => Err(VaultError::RecordForged),
            Err(error) => Err(error),
        };
        settle(results, item.place, result);
        None
    }
}

/// The fingerprints of each card, given by their full length under keys of these `versions`, and the record that one of them
/// leads to; and what is to be opened of it.
fn find(
    store: &Store,
    tenant: &str,
    versions: &[u32],
    cards: Vec<(Sought, Vec<[u8; MAC_BYTES]>)>,
) -> Vec<(Lead, Option<OpenRequest>)> {
    let now_s = now_s();
    let with_keys = |(sought, macs): (Sought, Vec<_>)| {
        let key = |(version, mac): (&u32, &[u8; MAC_BYTES])| FingerprintKey {
            version: *version,
            fingerprint: cut(mac),
            template: sought.template.clone(),
        };
        (versions.iter().zip(&macs).map(key).collect::<Vec<_>>(), sought.reuse == Reuse::Tenant)
    };
    let cards: Vec<_> = cards.into_iter().map(with_keys).collect();
    let reusing: Vec<_> =
        cards.iter().filter(|(_, is_reused)| *is_reused).map(|(keys, _)| keys.as_slice()).collect();
    let found = store.find(tenant, &reusing);
    let mut found =
        found.unwrap_or_else(|error| reusing.iter().map(|_| Err(error.clone())).collect()).into_iter();
    let mut plan = |(keys, is_reused)| {
        let known = if is_reused { found.next().unwrap_or(Ok(None)) } else { Ok(None) };
        let (known, asked) = match known {
            Ok(Some((key, record))) if !record.header.expired(now_s) => match Token::from_key(&key) {
                Some(token) => {
                    let header = record.header.clone();
                    (Ok(Some((token, header))), open_request(Part::Card, tenant, &token, record))
                }
                None => (Err(VaultError::RecordForged), None),
            },
            Ok(_) => (Ok(None), None),
            Err(error) => (Err(error.into()), None),
        };
        ((keys, known), asked)
    };
    cards.into_iter().map(&mut plan).collect()
}
