//! What is sealed of a card, and what it is bound to.
//!
//! The AAD of both parts of a record is: part tag (1) ‖ tenant length (2) ‖ tenant ‖ token key length (1) ‖ token key
//! ‖ the record's header. So neither part opens under another token, tenant, key version, template or expiry, nor in
//! place of the other part.
#![deny(clippy::indexing_slicing)]

use serde::{Deserialize, Serialize};
use vault_api::{Metadata, Sensitive};
use zeroize::Zeroizing;

use super::{Token, VaultError};
use crate::{
    card::{CardExpiry, Pan},
    hsm::{Hsm, KeyName, OpenRequest, Opened, Purpose, SealRequest, Sealed},
    store::{Header, Record, RecordError, SealedPart, StoreError},
};

/// Which part of a record an AAD is for.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Card,
    Private,
}

/// The card part: length of the PAN (1), PAN, expiry date if any.
pub(super) fn card_text(pan: &Pan, expiry: Option<&CardExpiry>) -> Zeroizing<Vec<u8>> {
    let (digits, expiry) = (pan.digits(), expiry.map_or("", CardExpiry::as_str));
    // Exactly as large as needed: a buffer that grows leaves an unwiped copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(1 + digits.len() + expiry.len()));
    text.push(u8::try_from(digits.len()).unwrap_or(u8::MAX));
    text.extend_from_slice(digits);
    text.extend_from_slice(expiry.as_bytes());
    text
}

/// Reads what [`card_text`] wrote; `None` for anything else.
pub(super) fn parse_card_text(text: &[u8]) -> Option<(Pan, Option<CardExpiry>)> {
    let (len, rest) = text.split_first()?;
    let (digits, expiry) = rest.split_at_checked(usize::from(*len))?;
    let pan = Pan::parse(std::str::from_utf8(digits).ok()?).ok()?;
    let expiry = match std::str::from_utf8(expiry).ok()? {
        "" => None,
        date => Some(CardExpiry::parse(date).ok()?),
    };
    Some((pan, expiry))
}

/// The private part: what the caller wants to remember, as JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Private {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) holder: Option<Sensitive>,
    #[serde(default, skip_serializing_if = "no_metadata")]
    pub(super) metadata: Metadata,
}

fn no_metadata(metadata: &Metadata) -> bool {
    metadata.0.is_empty()
}

impl Private {
    /// The JSON, or `None` if there is nothing to remember.
    pub(super) fn text(&self) -> Option<Zeroizing<Vec<u8>>> {
        if self.holder.is_none() && no_metadata(&self.metadata) {
            return None;
        }
        serde_json::to_vec(self).ok().map(Zeroizing::new)
    }
}

/// The sealing of a record's parts under a header that is complete.
pub(super) struct Sealing {
    header: Header,
    has_private: bool,
}

impl Sealing {
    /// What the HSM is to seal for `token`: the card, then the private part if there is one.
    pub(super) fn requests(
        header: Header,
        tenant: &str,
        token: &Token,
        card: Zeroizing<Vec<u8>>,
        private: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<(Self, Vec<SealRequest>), VaultError> {
        let has_private = private.is_some();
        let bytes = header.encode(has_private).map_err(StoreError::from)?;
        let key = record_key(&header);
        let mut requests =
            vec![SealRequest { key, aad: aad(Part::Card, tenant, token, &bytes), plaintext: card }];
        if let Some(plaintext) = private {
            let aad = aad(Part::Private, tenant, token, &bytes);
            requests.push(SealRequest { key, aad, plaintext });
        }
        Ok((Self { header, has_private }, requests))
    }

    /// The record, from what the HSM made of the requests.
    pub(super) fn record(self, sealed: &mut impl Iterator<Item = Sealed>) -> Result<Record, VaultError> {
        let mut part = || {
            let sealed = sealed.next().ok_or(RecordError::CutShort).map_err(StoreError::from)?;
            Ok::<_, VaultError>(SealedPart { nonce: sealed.nonce, ciphertext: sealed.ciphertext })
        };
        let card = part()?;
        let private = self.has_private.then(&mut part).transpose()?;
        Ok(Record { header: self.header, private, card })
    }
}

/// What the HSM is to open for one part of `record`; `None` if the record has no such part.
pub(super) fn open_request(part: Part, tenant: &str, token: &Token, record: Record) -> Option<OpenRequest> {
    let header = record.header.encode(record.private.is_some()).ok()?;
    let sealed = match part {
        Part::Card => record.card,
        Part::Private => record.private?,
    };
    Some(OpenRequest {
        key: record_key(&record.header),
        aad: aad(part, tenant, token, &header),
        sealed: Sealed { nonce: sealed.nonce, ciphertext: sealed.ciphertext },
    })
}

/// Opens the private part of `record`; the empty one if it has none. Either way the header is authenticated: without
/// a private part it is the card that is opened, and wiped unread.
pub(super) async fn open_private(
    hsm: &Hsm,
    tenant: &str,
    token: &Token,
    record: &Record,
) -> Result<Private, VaultError> {
    let part = if record.private.is_some() { Part::Private } else { Part::Card };
    let request = open_request(part, tenant, token, record.clone()).ok_or(VaultError::RecordForged)?;
    let opened = hsm.open_sealed(vec![request]).await?.into_iter().next().flatten();
    match part {
        Part::Card => opened.map(|_| Private::default()).ok_or(VaultError::RecordForged),
        Part::Private => parse_private(opened),
    }
}

/// Opens every part of `record` in one call to the HSM: the card, and the private part, empty if it has none.
pub(super) async fn open_record(
    hsm: &Hsm,
    tenant: &str,
    token: &Token,
    record: &Record,
) -> Result<((Pan, Option<CardExpiry>), Private), VaultError> {
    let parts = [Part::Card, Part::Private].into_iter();
    let requests = parts.filter_map(|part| open_request(part, tenant, token, record.clone()));
    let mut opened = hsm.open_sealed(requests.collect()).await?.into_iter();
    let card = opened.next().flatten().and_then(|text| parse_card_text(&text));
    let private = opened.next().map_or(Ok(Private::default()), parse_private)?;
    Ok((card.ok_or(VaultError::RecordForged)?, private))
}

pub(super) fn parse_private(opened: Opened) -> Result<Private, VaultError> {
    opened.and_then(|text| serde_json::from_slice(&text).ok()).ok_or(VaultError::RecordForged)
}

fn record_key(header: &Header) -> KeyName {
    KeyName { purpose: Purpose::Record, version: header.key_version }
}

fn aad(part: Part, tenant: &str, token: &Token, header: &[u8]) -> Vec<u8> {
    let tag = match part {
        Part::Card => b'c',
        Part::Private => b'p',
    };
    let token = token.key();
    // A tenant's name comes from a JWT, whose size is bounded far below 64 KiB.
    let tenant_len = u16::try_from(tenant.len()).unwrap_or(u16::MAX).to_be_bytes();
    let token_len = u8::try_from(token.as_bytes().len()).unwrap_or(u8::MAX);
    [&[tag], tenant_len.as_slice(), tenant.as_bytes(), &[token_len], token.as_bytes(), header].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_card_comes_back(digits in "[0-9]{12,19}", expiry in prop::option::of("(0[1-9]|1[0-2])/[0-9]{2}")) {
            let pan = Pan::parse(&digits).ok().unwrap();
            let date = expiry.as_deref().map(|text| CardExpiry::parse(text).ok().unwrap());
            let text = card_text(&pan, date.as_ref());
            let (pan, date) = parse_card_text(&text).unwrap();
            prop_assert_eq!(pan.as_str(), digits);
            prop_assert_eq!(date.as_ref().map(CardExpiry::as_str), expiry.as_deref());
        }

        #[test]
        fn other_bytes_are_no_card(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_card_text(&bytes);
        }
    }

    #[test]
    fn each_part_of_the_binding_counts() {
        let (a, b) = (Token::Opaque([1; 16]), Token::Opaque([2; 16]));
        for (part, other) in [(Part::Card, Part::Private), (Part::Private, Part::Card)] {
            let base = aad(part, "shop", &a, b"header");
            assert_ne!(base, aad(other, "shop", &a, b"header"));
            assert_ne!(base, aad(part, "shop2", &a, b"header"));
            assert_ne!(base, aad(part, "shop", &b, b"header"));
            assert_ne!(base, aad(part, "shop", &a, b"headers"));
        }
    }
}
