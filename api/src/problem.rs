//! Errors on the wire.

use serde::{Deserialize, Serialize};

use crate::Code;

/// The `detail` of `not_found` where a socket has no endpoint at the path; elsewhere something in the path is unknown.
pub const NO_ENDPOINT: &str = "there is no such endpoint";

/// An error answer, `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI for the kind of problem: `urn:vaultd:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short summary, the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong here and what to change; never card data.
    pub detail: String,
    /// The stable code to match on.
    pub code: Code,
    /// The request's id, as in the `x-request-id` header and the daemon's log.
    pub request_id: String,
}

impl Problem {
    /// The problem of `code` in the request `request_id`.
    pub fn new(code: Code, detail: impl Into<String>, request_id: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:vaultd:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            request_id: request_id.into(),
        }
    }
}

/// Why one item of a batch failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ItemError {
    /// The stable code to match on.
    pub code: Code,
    /// The status a single request would have had.
    pub status: u16,
    /// A short summary, the same for every occurrence.
    pub title: String,
    /// What is wrong here and what to change; never card data.
    pub detail: String,
}

impl ItemError {
    /// The error of `code` for one item.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, status: code.status(), title: code.title().to_owned(), detail: detail.into() }
    }
}
