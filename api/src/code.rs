//! The stable error codes that clients match on.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    // `$name` is a `tt` so that utoipa sees the literal itself: of a `literal` it would not take the name.
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:tt, $status:literal, $title:literal;)+) => {
        /// A stable error code. Its status and title never change; new codes may be added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Code {
            /// Every code, in the order of its status.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code as it is written on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The HTTP status the code always comes with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status),+ }
            }

            /// A short summary for people, the same at every occurrence (RFC 9457, 3.1.3).
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    MalformedJson = "malformed_json", 400, "The body is not valid JSON";
    /// The body is JSON but not what the endpoint takes.
    InvalidRequest = "invalid_request", 400, "The request is not what this endpoint takes";
    /// The PAN has the wrong characters, length or check digit.
    InvalidPan = "invalid_pan", 400, "The card number is not valid";
    /// The token has none of the vault's formats.
    InvalidToken = "invalid_token", 400, "The token is not well formed";
    /// No `Authorization: Bearer` header.
    MissingToken = "missing_token", 401, "A bearer token is required";
    /// The JWT breaks a rule; the detail says which.
    InvalidJwt = "invalid_jwt", 401, "The bearer token is not valid";
    /// The JWT was valid once.
    ExpiredJwt = "expired_jwt", 401, "The bearer token has expired";
    /// The JWT's `jti` was used before.
    ReplayedJwt = "replayed_jwt", 401, "The bearer token was used before";
    /// The JWT lacks the scope of the endpoint.
    InsufficientScope = "insufficient_scope", 403, "The bearer token lacks the scope";
    /// The JWT's issuer may not speak for the tenant.
    WrongTenant = "wrong_tenant", 403, "The issuer may not speak for this tenant";
    /// The JWT is bound to another peer.
    SenderMismatch = "sender_mismatch", 403, "The bearer token belongs to another peer";
    /// The caller was locked by a guard.
    CallerLocked = "caller_locked", 403, "The caller is locked";
    /// A second person must approve, or its approval does not do.
    ApprovalRequired = "approval_required", 403, "A second person must approve";
    /// No such token in the caller's tenant.
    UnknownToken = "unknown_token", 404, "The token is unknown";
    /// No such path.
    NotFound = "not_found", 404, "There is nothing at this path";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed here";
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", 408, "The request took too long to arrive";
    /// Every try to mint a free token failed.
    TokenSpaceExhausted = "token_space_exhausted", 409, "No free token was found";
    /// The key is still needed.
    KeyInUse = "key_in_use", 409, "The key is still needed";
    /// The token's lifetime is over.
    TokenExpired = "token_expired", 410, "The token has expired";
    /// The body is larger than the limit.
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    /// The body is not declared as JSON.
    UnsupportedMediaType = "unsupported_media_type", 415, "The body must be application/json";
    /// The configuration cannot be used; what was in force before stays so.
    ConfigInvalid = "config_invalid", 422, "The configuration cannot be used";
    /// The envelope does not verify or open.
    EnvelopeInvalid = "envelope_invalid", 422, "The envelope is not valid";
    /// The envelope's lifetime is over.
    EnvelopeExpired = "envelope_expired", 422, "The envelope has expired";
    /// The single-use envelope was opened before.
    EnvelopeReplayed = "envelope_replayed", 422, "The envelope was opened before";
    /// The caller is over a limit.
    RateLimited = "rate_limited", 429, "Too many requests";
    /// The request's head is larger than the limit, or has too many fields.
    HeadTooLarge = "head_too_large", 431, "The head of the request is too large";
    /// The HSM cannot be used at the moment.
    HsmUnavailable = "hsm_unavailable", 503, "The HSM is unavailable";
    /// The store cannot be used, or a record in it does not verify.
    StoreUnavailable = "store_unavailable", 503, "The store is unavailable";
    /// The audit log cannot be written.
    AuditUnavailable = "audit_unavailable", 503, "The audit log is unavailable";
    /// More work is waiting than the vault takes on.
    Overloaded = "overloaded", 503, "The vault is overloaded";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_name_is_the_serialised_name() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }
}
