//! Finding tokens by holder or PAN, and comparing a PAN with a token.

use serde::{Deserialize, Serialize};

use crate::{Sensitive, TokenRecord};

/// The most records of one page of a search.
pub const MAX_SEARCH_LIMIT: usize = 100;

/// The body of `POST /v1/tokens/search`: `holder`, `pan` or both.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SearchRequest {
    /// The card holder's name; upper and lower case, Unicode forms and spaces between words make no difference. What cannot
    /// be a name is not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub holder: Option<Sensitive>,
    /// The card number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = Option<String>, min_length = 12, max_length = 37, example = "4111111111111111",
            pattern = "^[0-9]([ -]?[0-9]){11,18}$"
        )
    )]
    pub pan: Option<Sensitive>,
    /// The most records of the answer, 1 to 100; 20 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub limit: Option<usize>,
    /// Where the last answer to the same search stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The answer of `POST /v1/tokens/search`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SearchAnswer {
    /// The records found, in the order of their tokens. Fewer than the limit, or none, is no sign that there are no more:
    /// that is an answer without `cursor`.
    pub tokens: Vec<TokenRecord>,
    /// Opaque; present if there may be more: send it with the same search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The body of `POST /v1/tokens/compare`.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompareRequest {
    /// The token.
    pub token: String,
    /// The card number that may be the token's.
    #[cfg_attr(
        feature = "openapi",
        schema(
            value_type = String, min_length = 12, max_length = 37, example = "4111111111111111",
            pattern = "^[0-9]([ -]?[0-9]){11,18}$"
        )
    )]
    pub pan: Sensitive,
}

/// The answer of `POST /v1/tokens/compare`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompareAnswer {
    /// Whether the token stands for the card number.
    pub equal: bool,
}
