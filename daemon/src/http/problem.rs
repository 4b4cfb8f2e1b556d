//! Failures as answers: the only place that turns one into a status and a code.

use std::time::Duration;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use vault_api::{Code, ItemError, Problem};

use crate::{
    audit::AuditError,
    auth::{AuthError, LoginError},
    card::{CardExpiryError, PanError},
    hsm::HsmError,
    store::StoreError,
    vault::VaultError,
};

/// How long a caller should wait after a 503, in seconds.
const RETRY_AFTER_S: u64 = 1;
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// Fields of draft-ietf-httpapi-ratelimit-headers-10, 3 and 4.
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Why a request is not done, on its way to become an answer. The request id is added where the answer is finished.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: Code,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What an operator has to know and a caller must not: for the log.
    pub(super) cause: Option<String>,
}

impl Failure {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), headers: Vec::new(), cause: None }
    }

    /// The vault answers every item; if it did not, that would be this.
    pub(super) fn no_answer() -> Self {
        Self::new(Code::Overloaded, "the vault gave no answer")
    }

    /// More than `most_per_second` requests that the limit `name` is for, one of them just now.
    pub(super) fn too_fast(name: &str, most_per_second: u32, detail: &str) -> Self {
        let failure = Self::new(Code::RateLimited, detail)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"));
        let fields = [
            (RATELIMIT_POLICY, format!("\"{name}\";q={most_per_second};w=1")),
            (RATELIMIT, format!("\"{name}\";r=0;t=1")),
        ];
        fields.into_iter().fold(failure, |failure, (field, value)| match HeaderValue::try_from(value) {
            Ok(value) => failure.with_header(field, value),
            Err(_) => failure,
        })
    }

    /// The audit log cannot be read.
    pub(super) fn unreadable_log(error: &std::io::Error) -> Self {
        let detail = "the audit log cannot be read; the daemon's log has the cause under this request's id";
        Self { cause: Some(error.to_string()), ..Self::new(Code::AuditUnavailable, detail) }
    }

    /// A request without an entry, whether or not it was done.
    pub(super) fn unaudited() -> Self {
        let detail = "the audit log cannot be written, and without it nothing is done";
        Self::new(Code::AuditUnavailable, detail)
    }

    /// A request that took longer than `limit`. Its work may still be done: not [`Code::Overloaded`], after which every client
    /// asks again.
    pub(super) fn late(limit: Duration) -> Self {
        let detail = format!("not done within {} seconds, and not known whether it will be", limit.as_secs());
        Self {
            cause: Some("limits.request_timeout_seconds is over".to_owned()),
            ..Self::new(Code::StoreUnavailable, detail)
        }
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// After this answer the connection cannot be used again: the rest of the request is still in it.
    pub(super) fn closing(self) -> Self {
        self.with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// The answer in full.
    pub(super) fn answer(self, request_id: &str) -> Response {
        let Self { code, detail, headers, cause: _ } = self;
        let problem = Problem::new(code, detail, request_id);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status(code), body).into_response();
        let out = response.headers_mut();
        out.extend(headers);
        out.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        out.insert(header::CACHE_CONTROL, NO_STORE);
        if code.status() == 503 {
            out.insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
        }
        response
    }
}

/// A handler's failure travels as an empty response with itself attached, until the request id is known.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = status(self.code).into_response();
        response.extensions_mut().insert(self);
        response
    }
}

fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        let code = match error {
            AuthError::Missing => Code::MissingToken,
            AuthError::Invalid(_) | AuthError::UnknownKey | AuthError::Approval(_) => Code::InvalidJwt,
            AuthError::Expired => Code::ExpiredJwt,
            AuthError::Replayed => Code::ReplayedJwt,
            AuthError::Scope(_) => Code::InsufficientScope,
            AuthError::Tenant(_) => Code::WrongTenant,
            AuthError::Sender => Code::SenderMismatch,
            AuthError::Store(error) => return VaultError::Store(error).into(),
            AuthError::ReplayMemoryFull => Code::Overloaded,
        };
        let failure = Self::new(code, error.to_string());
        match challenge(&error, code).and_then(|text| HeaderValue::try_from(text).ok()) {
            Some(challenge) => failure.with_header(header::WWW_AUTHENTICATE, challenge),
            None => failure,
        }
    }
}

/// For a request that is not begun. Why the log cannot be written is in the daemon's log once, not for each caller.
impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Unavailable(_) | AuditError::Late => Self::unaudited(),
            AuditError::Busy => VaultError::Store(StoreError::Busy).into(),
        }
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        let code = match error {
            LoginError::NotConfigured => Code::SenderMismatch,
            LoginError::Client => Code::WrongTenant,
            LoginError::Scope(_) => Code::InsufficientScope,
            LoginError::ClientNeeded | LoginError::Lifetime | LoginError::Digest => Code::InvalidRequest,
        };
        Self::new(code, error.to_string())
    }
}

/// The `WWW-Authenticate` header (RFC 6750, 3).
fn challenge(error: &AuthError, code: Code) -> Option<String> {
    // The text goes into a quoted string, so it must hold no quote of its own.
    let description = error.to_string().replace(['"', '\\'], "'");
    match (error, code.status()) {
        (AuthError::Scope(scope), _) => Some(format!(
            "Bearer error=\"insufficient_scope\", error_description=\"{description}\", scope=\"{scope}\""
        )),
        (_, 401) => Some(format!("Bearer error=\"invalid_token\", error_description=\"{description}\"")),
        _ => None,
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        let code = code_of(&error);
        match code {
            Code::HsmUnavailable if matches!(error, VaultError::Hsm(HsmError::Down(_))) => {
                Self::new(code, "the HSM is away; the vault goes on as soon as it is back")
            }
            Code::StoreUnavailable | Code::HsmUnavailable => {
                let detail = "the daemon's log has the cause under this request's id; try again later";
                Self { cause: Some(error.to_string()), ..Self::new(code, detail) }
            }
            Code::Overloaded => {
                Self::new(code, "more work is waiting than the vault takes on: try again later")
            }
            _ => Self::new(code, error.to_string()),
        }
    }
}

impl From<PanError> for Failure {
    fn from(error: PanError) -> Self {
        VaultError::from(error).into()
    }
}

fn code_of(error: &VaultError) -> Code {
    match error {
        VaultError::Pan(_) => Code::InvalidPan,
        VaultError::Request(_) => Code::InvalidRequest,
        VaultError::MalformedToken => Code::InvalidToken,
        VaultError::UnknownToken => Code::UnknownToken,
        VaultError::TokenExpired => Code::TokenExpired,
        VaultError::TokenSpaceExhausted => Code::TokenSpaceExhausted,
        VaultError::UnknownKey => Code::NotFound,
        VaultError::KeyInUse(_) => Code::KeyInUse,
        VaultError::EnvelopeInvalid(_) => Code::EnvelopeInvalid,
        VaultError::EnvelopeExpired => Code::EnvelopeExpired,
        VaultError::EnvelopeReplayed => Code::EnvelopeReplayed,
        VaultError::RecordForged
        | VaultError::Store(StoreError::Damaged(_) | StoreError::Failed(_) | StoreError::Panicked) => {
            Code::StoreUnavailable
        }
        VaultError::TooManyUses
        | VaultError::KeysChanged
        | VaultError::Hsm(HsmError::Busy)
        | VaultError::Store(StoreError::Busy) => Code::Overloaded,
        VaultError::Hsm(
            HsmError::Unavailable(_) | HsmError::Down(_) | HsmError::TimedOut | HsmError::NoKey(_),
        )
        | VaultError::Store(StoreError::SealsSpent(_)) => Code::HsmUnavailable,
    }
}

impl From<Failure> for ItemError {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code, failure.detail)
    }
}

impl From<CardExpiryError> for Failure {
    fn from(error: CardExpiryError) -> Self {
        VaultError::from(error).into()
    }
}

/// A whole HTTP answer as text, for a connection without a request.
pub(super) fn whole_answer(code: Code, detail: &str) -> String {
    let problem = Problem::new(code, detail, "none");
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let reason = status(code).canonical_reason().unwrap_or_default();
    let retry =
        if code.status() == 503 { format!("retry-after: {RETRY_AFTER_S}\r\n") } else { String::new() };
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{retry}\
         cache-control: no-store\r\nx-request-id: none\r\nconnection: close\r\n\r\n{body}",
        code.status(),
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_one_header_without_stray_quotes() {
        for error in
            [AuthError::Missing, AuthError::Expired, AuthError::Replayed, AuthError::Invalid("a \"b\" c")]
        {
            let failure = Failure::from(error);
            let (name, value) = failure.headers.first().unwrap();
            assert_eq!(name, header::WWW_AUTHENTICATE);
            let challenge = value.to_str().unwrap();
            assert!(challenge.starts_with("Bearer error=\""), "{challenge}");
            assert_eq!(challenge.matches('"').count(), 4, "{challenge}");
        }
    }

    #[test]
    fn the_cause_of_a_fault_stays_inside() {
        let error = VaultError::Hsm(HsmError::Unavailable("CKR_DEVICE_ERROR on slot 7".to_owned()));
        let failure = Failure::from(error);
        assert_eq!(failure.code, Code::HsmUnavailable);
        assert!(!failure.detail.contains("CKR"), "{}", failure.detail);
        assert!(failure.cause.unwrap().contains("CKR"));
    }
}
