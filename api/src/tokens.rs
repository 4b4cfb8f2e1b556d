//! Tokenize, detokenize and records.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{ItemError, Metadata, Sensitive};

/// The body of `POST /v1/tokenize`, and one item of a batch.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenizeRequest {
    /// The card number: 12 to 19 digits; single spaces or hyphens between groups are removed.
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = String, min_length = 12, max_length = 37, example = "4111111111111111",
            pattern = "^[0-9]([ -]?[0-9]){11,18}$"
        )
    )]
    pub pan: Sensitive,
    /// Name of the configured template; the default one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The card holder's name, at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, min_length = 1, max_length = 200))]
    pub holder: Option<Sensitive>,
    /// The card's expiry date: `MM/YY`, `MM/YYYY`, `MMYY` or `YYYY-MM`. Given back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = Option<String>, min_length = 4, max_length = 7, example = "12/31",
            pattern = "^((0[1-9]|1[0-2])(/[0-9]{2}|/[0-9]{4}|[0-9]{2})|[0-9]{4}-(0[1-9]|1[0-2]))$"
        )
    )]
    pub expiry_date: Option<Sensitive>,
    /// Lifetime of the token in seconds; the template's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub expires_in: Option<u64>,
    /// What the caller wants to remember with a new token. For a PAN seen before, this, `holder`, `expiry_date` and
    /// `expires_in` change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

impl TokenizeRequest {
    /// A request for `pan` with everything else left to the vault.
    pub fn new(pan: impl Into<Sensitive>) -> Self {
        Self {
            pan: pan.into(),
            template: None,
            holder: None,
            expiry_date: None,
            expires_in: None,
            metadata: None,
        }
    }
}

/// The answer of `POST /v1/tokenize`: status 201 if `created`, else 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenizeAnswer {
    /// The token that stands for the PAN.
    pub token: String,
    /// Whether this request made the token; false if the PAN was seen before.
    pub created: bool,
    /// First six and last four digits, the others as `*`.
    pub masked_pan: String,
    /// The first six digits.
    pub bin: String,
    /// The last four digits.
    pub last4: String,
    /// The card's brand, by its BIN.
    pub brand: Brand,
    /// The template the token was made with.
    pub template: String,
    /// When the token was made, to the millisecond.
    pub created_at: Timestamp,
    /// When the token ends, to the second; null if never.
    pub expires_at: Option<Timestamp>,
}

/// A card brand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Brand {
    /// Visa.
    Visa,
    /// MasterCard.
    Mastercard,
    /// American Express.
    Amex,
    /// Discover.
    Discover,
    /// Diners Club.
    Diners,
    /// JCB.
    Jcb,
    /// UnionPay.
    Unionpay,
    /// Maestro.
    Maestro,
    /// Mir.
    Mir,
    /// No range that is known; in a client, also a brand of a newer vault.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Brand {
    /// As in JSON.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(out)
    }
}

/// The body of `POST /v1/tokenize/batch`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenizeBatchRequest {
    /// 1 to 1,000 items.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub items: Vec<TokenizeRequest>,
}

/// The answer of a batch, in the order of the request.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchAnswer<T> {
    /// One result for each item.
    pub results: Vec<BatchItem<T>>,
}

/// The result of one item: what a single request would have given, or `{"error": …}`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum BatchItem<T> {
    /// The item failed; the others did not because of it.
    Failed {
        /// Why.
        error: ItemError,
    },
    /// The item's answer.
    Done(T),
}

impl<T> BatchItem<T> {
    /// The item as a `Result`.
    ///
    /// # Errors
    /// The [`ItemError`] of an item that failed.
    pub fn into_result(self) -> Result<T, ItemError> {
        match self {
            Self::Done(answer) => Ok(answer),
            Self::Failed { error } => Err(error),
        }
    }
}

/// The body of `POST /v1/detokenize`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DetokenizeRequest {
    /// The token.
    pub token: String,
    /// How much to show; everything if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reveal: Option<Reveal>,
}

/// How much of a card a detokenize shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reveal {
    /// The PAN; needs the scope `detokenize`.
    Full,
    /// The masked PAN; the scope `detokenize:masked` is enough.
    Masked,
}

/// The body of `POST /v1/detokenize/batch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DetokenizeBatchRequest {
    /// 1 to 1,000 tokens.
    #[cfg_attr(feature = "openapi", schema(min_items = 1, max_items = 1000))]
    pub tokens: Vec<String>,
}

/// The answer of `POST /v1/detokenize`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum DetokenizeAnswer {
    /// With `"reveal": "full"`.
    Full {
        /// The PAN, digits only.
        #[cfg_attr(
            feature = "openapi",
            schema(value_type = String, pattern = "^[0-9]{12,19}$", example = "4111111111111111")
        )]
        pan: Sensitive,
        /// The card's expiry date, if one was given with the PAN.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(
            feature = "openapi",
            schema(value_type = Option<String>, min_length = 4, max_length = 7, example = "12/31")
        )]
        expiry_date: Option<Sensitive>,
    },
    /// With `"reveal": "masked"`.
    Masked {
        /// First six and last four digits, the others as `*`.
        masked_pan: String,
    },
}

/// A token's record without the PAN: the answer of `GET` and `PATCH /v1/tokens/{token}`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenRecord {
    /// The token.
    pub token: String,
    /// First six and last four digits, the others as `*`.
    pub masked_pan: String,
    /// The first six digits.
    pub bin: String,
    /// The last four digits.
    pub last4: String,
    /// The card's brand, by its BIN.
    pub brand: Brand,
    /// The template the token was made with.
    pub template: String,
    /// When the token was made, to the millisecond.
    pub created_at: Timestamp,
    /// When the token ends, to the second; null if never.
    pub expires_at: Option<Timestamp>,
    /// Version of the key that seals the record.
    pub key_version: u32,
    /// Names the sealed card: changes whenever the card is sealed anew.
    pub ciphertext_id: String,
    /// The same for every token of one card inside the tenant, and tells nothing about the card. Another one for tokens
    /// that were made after the fingerprint key was rotated, until a rewrap has brought all to that key.
    pub fingerprint: String,
    /// The card holder's name, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, min_length = 1, max_length = 200))]
    pub holder: Option<Sensitive>,
    /// What the caller wanted to remember; an empty object if nothing.
    pub metadata: Metadata,
}

/// The body of `PATCH /v1/tokens/{token}`. What is left out stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct TokenPatch {
    /// Replaces the metadata as a whole.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub metadata: Option<Metadata>,
    /// New lifetime in seconds, counted from now.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub expires_in: Option<u64>,
}

/// A value that may be left out but not be null: in a change, null could be taken for "remove it".
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brand_is_named_as_in_json() {
        assert_eq!(format!("{}, {:<8}.", Brand::Mastercard, Brand::Jcb), "mastercard, jcb     .");
        assert_eq!(serde_json::to_string(&Brand::Unknown).unwrap(), format!("\"{}\"", Brand::Unknown));
    }
}
