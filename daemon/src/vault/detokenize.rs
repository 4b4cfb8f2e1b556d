//! Detokenize: a token in, the card out.

use futures_util::{StreamExt, stream};

use super::{
    Token, Vault, VaultError,
    card_sealing::{Part, open_request, parse_card_text},
    now_s,
    records::MAX_ATTEMPTS,
    tokenize::masked,
};
use crate::{
    card::{CardExpiry, Masked, Pan},
    hsm::Opened,
    store::{Record, StoreError},
};

/// How many tokens of a batch are read before the HSM has something to do: about as many as it opens meanwhile.
const STRETCH: usize = 50;
/// Stretches of a larger batch that the HSM has at once, each spread over all of its sessions.
const STRETCHES_AT_THE_HSM: usize = 2;

/// A card that was given back.
pub struct Revealed {
    /// The PAN.
    pub pan: Pan,
    /// The card's expiry date, if one came with the PAN.
    pub expiry: Option<CardExpiry>,
}

/// What came of one try at a token.
struct Tried {
    result: Result<Revealed, VaultError>,
    /// Under which key version its record was found; 0 if there was none.
    key_version: u32,
}

impl Tried {
    /// A record that was rewrapped between the reading and the opening does not open either, if its old key is gone.
    fn may_have_moved(&self) -> bool {
        matches!(self.result, Err(VaultError::RecordForged))
    }
}

impl Vault {
    /// The card of each token, in order. Each token has its own error.
    pub async fn detokenize(
        &self,
        tenant: &str,
        tokens: Vec<Result<Token, VaultError>>,
    ) -> Vec<Result<Revealed, VaultError>> {
        let mut tries = self.reveal(tenant, &tokens).await;
        for _ in 1..MAX_ATTEMPTS {
            let again = tokens.iter().zip(&tries).filter(|(_, tried)| tried.may_have_moved());
            let again: Vec<_> = again.map(|(token, _)| token.clone()).collect();
            if again.is_empty() {
                break;
            }
            let now = self.reveal(tenant, &again).await;
            let mut has_moved = false;
            for (tried, now) in tries.iter_mut().filter(|tried| tried.may_have_moved()).zip(now) {
                has_moved |= tried.key_version != now.key_version;
                *tried = now;
            }
            if !has_moved {
                break;
            }
        }
        tries.into_iter().map(|tried| tried.result).collect()
    }

    async fn reveal(&self, tenant: &str, tokens: &[Result<Token, VaultError>]) -> Vec<Tried> {
        if tokens.len() <= STRETCH {
            return self.reveal_stretch(tenant, tokens).await;
        }
        // While the HSM opens some stretches, the next is read. With all of them there, others would find no room.
        let stretches: Vec<_> =
            tokens.chunks(STRETCH).map(|stretch| self.reveal_stretch(tenant, stretch)).collect();
        stream::iter(stretches).buffered(STRETCHES_AT_THE_HSM).concat().await
    }

    async fn reveal_stretch(&self, tenant: &str, tokens: &[Result<Token, VaultError>]) -> Vec<Tried> {
        let known: Vec<_> = tokens.iter().flatten().copied().collect();
        let mut records = self.live_records(tenant, &known).into_iter();
        let find = |token: &Result<Token, VaultError>| {
            let token = token.clone()?;
            Ok((token, records.next().unwrap_or(Err(VaultError::UnknownToken))?))
        };
        let found: Vec<Result<_, VaultError>> = tokens.iter().map(find).collect();
        let version = |found: &Result<(Token, Record), _>| {
            found.as_ref().map_or(0, |(_, record)| record.header.key_version)
        };
        let key_versions: Vec<_> = found.iter().map(version).collect();
        let cards = self.open_cards(tenant, found).await.into_iter();
        cards.zip(key_versions).map(|(result, key_version)| Tried { result, key_version }).collect()
    }

    /// The card in each record that was found, in order; [`VaultError::RecordForged`] for one that does not open.
    pub(super) async fn open_cards(
        &self,
        tenant: &str,
        found: Vec<Result<(Token, Record), VaultError>>,
    ) -> Vec<Result<Revealed, VaultError>> {
        let mut requests = Vec::with_capacity(found.len());
        let mut plan = |found: Result<(Token, Record), VaultError>| {
            let (token, record) = found?;
            let request = open_request(Part::Card, tenant, &token, record);
            requests.push(request.ok_or(VaultError::RecordForged)?);
            Ok(())
        };
        let planned: Vec<_> = found.into_iter().map(&mut plan).collect();
        let opened = self.hsm.open_sealed(requests).await.map_err(VaultError::from);
        let mut opened = opened.map(Vec::into_iter);
        let mut reveal = |plan: Result<(), VaultError>| {
            plan?;
            revealed(opened.as_mut().map_err(|error| error.clone())?.next().flatten())
        };
        planned.into_iter().map(&mut reveal).collect()
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

/// The card in what was opened.
pub(super) fn revealed(opened: Opened) -> Result<Revealed, VaultError> {
    let card = opened.and_then(|text| parse_card_text(&text));
    card.map(|(pan, expiry)| Revealed { pan, expiry }).ok_or(VaultError::RecordForged)
}
