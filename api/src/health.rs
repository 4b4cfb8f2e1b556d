//! What probes read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The answer of `GET /healthz`: the process runs and answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// `ok`, always.
    pub status: String,
}

/// The answer of `GET /readyz`: 200 if `ready`, 503 if not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// Whether every check passed.
    pub ready: bool,
    /// The result for each of `hsm`, `store` and `audit`.
    pub checks: BTreeMap<String, Check>,
}

/// One check of [`Readiness`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// Whether the part can be used.
    pub ok: bool,
    /// What is wrong, if anything is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}
