//! Payment envelopes: card data sealed into a claim of a signed JWT.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Sensitive;

/// Card data inside an envelope. Never stored by the vault.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CardData {
    /// The card number: 12 to 19 digits; single spaces or hyphens between groups are removed.
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = String, min_length = 12, max_length = 37, example = "4111111111111111",
            pattern = "^[0-9]([ -]?[0-9]){11,18}$"
        )
    )]
    pub card_number: Sensitive,
    /// The card's expiry date: `MM/YY`, `MM/YYYY`, `MMYY` or `YYYY-MM`. Given back as it came.
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = String, min_length = 4, max_length = 7, example = "12/31",
            pattern = "^((0[1-9]|1[0-2])(/[0-9]{2}|/[0-9]{4}|[0-9]{2})|[0-9]{4}-(0[1-9]|1[0-2]))$"
        )
    )]
    pub expiry_date: Sensitive,
    /// The card verification value: 3 or 4 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = Option<String>, min_length = 3, max_length = 4,
            pattern = "^[0-9]{3,4}$"
        )
    )]
    pub cvv: Option<Sensitive>,
}

/// The body of `POST /v1/envelopes`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SealEnvelopeRequest {
    /// What is sealed.
    pub meta_data: CardData,
    /// Whom it is for: its `aud`, the configured one if left out. It is signed, and whoever takes the envelope is to compare it
    /// with its own name; to open one, the vault asks for the tenant that sealed it, and not for the audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 1, max_length = 200))]
    pub audience: Option<String>,
    /// Lifetime in seconds; the configured one if left out, and never longer than the configured maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub expires_in: Option<u64>,
    /// Whether it may be opened only once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_use: Option<bool>,
}

/// The answer of `POST /v1/envelopes`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SealEnvelopeAnswer {
    /// The envelope: an RS256 JWT in compact form, with the card data sealed in its `meta_data` claim.
    pub jwt: String,
    /// The JWT's id.
    pub jti: String,
    /// When it ends, to the second.
    pub expires_at: Timestamp,
}

/// The body of `POST /v1/envelopes/open`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct OpenEnvelopeRequest {
    /// The envelope.
    pub jwt: String,
}

/// The answer of `POST /v1/envelopes/open`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenEnvelopeAnswer {
    /// The card data.
    pub meta_data: CardData,
    /// The JWT's other claims.
    pub claims: EnvelopeClaims,
}

/// The claims of an envelope but for `meta_data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EnvelopeClaims {
    /// Issuer: the name the vault is configured to seal under.
    pub iss: String,
    /// Audience: whom it is for, as the caller or the configuration said. Not compared by the vault.
    pub aud: String,
    /// When it was sealed, in seconds of Unix time.
    pub iat: u64,
    /// When it ends, in seconds of Unix time.
    pub exp: u64,
    /// The JWT's id.
    pub jti: String,
    /// The tenant that sealed it, and the only one that may open it.
    pub tenant: String,
    /// Whether it may be opened only once.
    #[serde(default, skip_serializing_if = "is_false")]
    pub single_use: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}
