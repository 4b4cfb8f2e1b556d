//! Cards that were seen before.

use super::{
    Token, Vault, VaultError,
    tokenize::{Pending, Tokenized, settle, tokenized},
};
use crate::store::{Record, TokenKey};

/// A card, and the record that its index row leads to.
pub(super) type Seen<'v> = (Pending<'v>, TokenKey, Record);

impl Vault {
    /// Answers each of `seen` in its place of `results`, once its record was opened and holds that very card: whoever hears
    /// of a token forgets the card, so that neither a record that is damaged nor one of another card may do.
    pub(super) async fn settle_seen(
        &self,
        tenant: &str,
        seen: Vec<Seen<'_>>,
        results: &mut [Result<Tokenized, VaultError>],
    ) {
        let mut found = Vec::with_capacity(seen.len());
        let mut items = Vec::with_capacity(seen.len());
        for (item, key, record) in seen {
            let token = Token::from_key(&key).ok_or(VaultError::RecordForged);
            items.push((item, token.clone(), record.header.clone()));
            found.push(token.map(|token| (token, record)));
        }
        let cards = self.open_cards(tenant, found).await;
        for ((item, token, header), card) in items.into_iter().zip(cards) {
            let card = match card {
                // It may have been rewrapped since it was read.
                Err(VaultError::RecordForged) => {
                    self.detokenize(tenant, vec![token.clone()]).await.pop().unwrap_or(card)
                }
                card => card,
            };
            let is_it = card.map(|card| card.pan.digits() == item.card.pan.digits());
            settle(
                results,
                item.place,
                match is_it {
                    Ok(true) => token.map(|token| tokenized(token, &item, header, false)),
                    Ok(false) => Err(VaultError::RecordForged),
                    Err(error) => Err(error),
                },
            );
        }
    }
}
