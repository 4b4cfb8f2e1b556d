//! Locked subjects and honey tokens, on the admin socket.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A subject that a guard has locked: every request of it is refused with `caller_locked`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lock {
    /// Who vouches for the subject: the `iss` of its JWTs.
    pub issuer: String,
    /// The `sub` of its JWTs.
    pub subject: String,
    /// The tenant it spoke for.
    pub tenant: String,
    /// Why it was locked.
    pub reason: String,
    /// When it was locked; RFC 3339, UTC.
    pub locked_at: Timestamp,
}

/// The answer of `GET /v1/locks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Locks {
    /// Every subject that is locked.
    pub locks: Vec<Lock>,
}

/// The body of `POST /v1/locks/unlock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct UnlockRequest {
    /// The issuer of the locked subject.
    pub issuer: String,
    /// The locked subject.
    pub subject: String,
}

/// The answer of `POST /v1/locks/unlock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unlocked {
    /// Whether the subject was locked until now.
    pub unlocked: bool,
}

/// The body of `POST /v1/honey`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PlantRequest {
    /// The tenant whose token it is to look like.
    pub tenant: String,
    /// Name of the configured template that says how it looks; the default one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Where it was put, for whoever gets the alarm; at most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 200))]
    pub note: Option<String>,
}

/// A honey token: it stands for no card, and whoever tries to reveal it is locked. The answer of `POST /v1/honey`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoneyToken {
    /// The token.
    pub token: String,
    /// The tenant whose token it looks like.
    pub tenant: String,
    /// The template that says how it looks.
    pub template: String,
    /// Where it was put, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was made; RFC 3339, UTC.
    pub planted_at: Timestamp,
}

/// The answer of `GET /v1/honey`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HoneyTokens {
    /// Every honey token.
    pub tokens: Vec<HoneyToken>,
}
