//! Detokenize: a token in, the card out.

use futures_util::future::join_all;

use super::{
    Token, Vault, VaultError,
    card_sealing::{Part, open_request, parse_card_text},
    now_s,
    records::MAX_ATTEMPTS,
    tokenize::masked,
};
use crate::{
    card::{CardExpiry, Masked, Pan},
    store::{Record, StoreError},
};

/// How many tokens of a batch are read before the HSM has something to do: about as many as it opens meanwhile.
const STRETCH: usize = 50;

/// A card that was given back.
pub struct Revealed {
    /// The PAN.
    pub pan: Pan,
    /// The card's expiry date, if one came with the PAN.
    pub expiry: Option<CardExpiry>,
}

impl Vault {
    /// The card of each token, in order. Each token has its own error.
    pub async fn detokenize(
        &self,
        tenant: &str,
        tokens: Vec<Result<Token, VaultError>>,
    ) -> Vec<Result<Revealed, VaultError>> {
        let (mut results, mut keys) = self.reveal(tenant, &tokens).await;
        for _ in 1..MAX_ATTEMPTS {
            let forged =
                |result: &Result<Revealed, VaultError>| matches!(result, Err(VaultError::RecordForged));
            if !results.iter().any(forged) {
                break;
            }
            // It may have been rewrapped between the reading and the opening, and its old key be gone.
            let (again, now) = self.reveal(tenant, &tokens).await;
            let same = keys == now;
            (results, keys) = (again, now);
            if same {
                break;
            }
        }
        results
    }

    /// One try, and under which key versions the records were found.
    async fn reveal(
        &self,
        tenant: &str,
        tokens: &[Result<Token, VaultError>],
    ) -> (Vec<Result<Revealed, VaultError>>, Vec<u32>) {
        if tokens.len() <= STRETCH {
            return self.reveal_stretch(tenant, tokens).await;
        }
        // While the HSM opens one stretch, the next is read.
        let stretches = join_all(tokens.chunks(STRETCH).map(|stretch| self.reveal_stretch(tenant, stretch)));
        let (results, versions): (Vec<_>, Vec<_>) = stretches.await.into_iter().unzip();
        (results.into_iter().flatten().collect(), versions.concat())
    }

    async fn reveal_stretch(
        &self,
        tenant: &str,
        tokens: &[Result<Token, VaultError>],
    ) -> (Vec<Result<Revealed, VaultError>>, Vec<u32>) {
        let known: Vec<_> = tokens.iter().flatten().copied().collect();
        let mut requests = Vec::with_capacity(known.len());
        let mut versions = Vec::with_capacity(known.len());
        let mut records = self.live_records(tenant, &known).into_iter();
        let planned: Vec<_> = tokens
            .iter()
            .map(|token| {
                let token = token.as_ref().map_err(Clone::clone)?;
                let record = records.next().unwrap_or(Err(VaultError::UnknownToken))?;
                versions.push(record.header.key_version);
                let request = open_request(Part::Card, tenant, token, record);
                requests.push(request.ok_or(VaultError::RecordForged)?);
                Ok(())
            })
            .collect();
        let opened = self.hsm.open_sealed(requests).await.map_err(VaultError::from);
        let mut opened = opened.map(Vec::into_iter);
        let results = planned.into_iter().map(|plan: Result<(), VaultError>| {
            plan?;
            let text = opened.as_mut().map_err(|error| error.clone())?.next().flatten();
            let card = text.and_then(|text| parse_card_text(&text)).ok_or(VaultError::RecordForged)?;
            Ok(Revealed { pan: card.0, expiry: card.1 })
        });
        (results.collect(), versions)
    }

    /// What may be shown of the card of `token`.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn masked(&self, tenant: &str, token: Token) -> Result<Masked, VaultError> {
        let record = self.live_record(tenant, token)?;
        let (record, _) = self.open_private(tenant, token, record).await?;
        masked(&record.header)
    }

    /// The record of `token`, if it exists and has not ended.
    pub(super) fn live_record(&self, tenant: &str, token: Token) -> Result<Record, VaultError> {
        self.live_records(tenant, &[token]).pop().unwrap_or(Err(VaultError::UnknownToken))
    }

    fn live_records(&self, tenant: &str, tokens: &[Token]) -> Vec<Result<Record, VaultError>> {
        let keys: Vec<_> = tokens.iter().map(|token| self.honey.hidden(tenant, token.key())).collect();
        let now_s = now_s();
        let live = |record: Result<Option<Record>, StoreError>| match record? {
            None => Err(VaultError::UnknownToken),
            Some(record) if record.header.expired(now_s) => Err(VaultError::TokenExpired),
            Some(record) => Ok(record),
        };
        match self.store.get(tenant, &keys) {
            Ok(records) => records.into_iter().map(live).collect(),
            Err(error) => tokens.iter().map(|_| Err(error.clone().into())).collect(),
        }
    }
}
