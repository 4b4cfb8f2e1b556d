//! Login by the kernel's word.

use serde::{Deserialize, Serialize};

use crate::{Scope, Sensitive};

/// The body of `POST /v1/login`. Everything may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    /// The coordinates of the bank or merchant that is acted for, where one peer serves several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 64))]
    pub client: Option<String>,
    /// The scopes that are wanted; all that the peer may have if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<Scope>>,
    /// Lifetime in seconds; the longest allowed if left out, and never longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1))]
    pub expires_in: Option<u64>,
    /// The digest of one request of somebody else: the JWT approves that request and is good for nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(min_length = 43, max_length = 43))]
    pub approves: Option<String>,
}

/// The answer of `POST /v1/login` (RFC 6749, 5.1).
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginAnswer {
    /// An RS256 JWT signed inside the HSM, bound to the caller's user id.
    pub access_token: Sensitive,
    /// `Bearer`.
    pub token_type: String,
    /// Lifetime in seconds.
    pub expires_in: u64,
    /// The granted scopes, space-separated.
    pub scope: String,
    /// The tenant the JWT speaks for.
    pub tenant: String,
}
