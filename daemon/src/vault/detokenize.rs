//! Detokenize: a token in, the card out.

use super::{
    Token, Vault, VaultError,
    card_sealing::{Part, open_request, parse_card_text},
    now_s,
    tokenize::masked,
};
use crate::{
    card::{CardExpiry, Masked, Pan},
    store::Record,
};

/// A card that was given back.
pub struct Revealed {
    /// The PAN.
    pub pan: Pan,
    /// The card's expiry date, if one came with the PAN.
    pub expiry: Option<CardExpiry>,
}

impl Vault {
    /// The card of each token, in order.
    ///
    /// # Errors
    /// The outer error: nothing can be opened now. The inner one is the token's own.
    pub async fn detokenize(
        &self,
        tenant: &str,
        tokens: &[Result<Token, VaultError>],
    ) -> Result<Vec<Result<Revealed, VaultError>>, VaultError> {
        let known: Vec<_> = tokens.iter().flatten().copied().collect();
        let mut records = self.live_records(tenant, &known)?.into_iter();
        let mut requests = Vec::with_capacity(known.len());
        let planned: Vec<_> = tokens
            .iter()
            .map(|token| {
                let token = token.clone()?;
                let record = records.next().unwrap_or(Err(VaultError::UnknownToken))?;
                requests
                    .push(open_request(Part::Card, tenant, &token, record).ok_or(VaultError::RecordForged)?);
                Ok(())
            })
            .collect();
        let mut opened = self.hsm.open_sealed(requests).await?.into_iter();
        let results = planned.into_iter().map(|plan: Result<(), VaultError>| {
            plan?;
            let text = opened.next().flatten().ok_or(VaultError::RecordForged)?;
            let (pan, expiry) = parse_card_text(&text).ok_or(VaultError::RecordForged)?;
            Ok(Revealed { pan, expiry })
        });
        Ok(results.collect())
    }

    /// What may be shown of the card of `token`; the PAN is not opened.
    ///
    /// # Errors
    /// [`VaultError`].
    pub fn masked(&self, tenant: &str, token: Token) -> Result<Masked, VaultError> {
        masked(&self.live_record(tenant, token)?.header)
    }

    /// The record of `token`, if it exists and has not ended.
    pub(super) fn live_record(&self, tenant: &str, token: Token) -> Result<Record, VaultError> {
        self.live_records(tenant, &[token])?.pop().unwrap_or(Err(VaultError::UnknownToken))
    }

    fn live_records(
        &self,
        tenant: &str,
        tokens: &[Token],
    ) -> Result<Vec<Result<Record, VaultError>>, VaultError> {
        let keys: Vec<_> = tokens.iter().map(Token::key).collect();
        let now_s = now_s();
        let records = self.store.get(tenant, &keys)?;
        let live = records.into_iter().map(|record| match record {
            None => Err(VaultError::UnknownToken),
            Some(record) if record.header.expired(now_s) => Err(VaultError::TokenExpired),
            Some(record) => Ok(record),
        });
        Ok(live.collect())
    }
}
