//! What operators read and do on the admin socket: keys, rewrap, status.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Check;

/// Where a key stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyState {
    /// It is being made.
    Pending,
    /// New work is done with it.
    Active,
    /// It opens, verifies and finds what it did before.
    Retired,
    /// It is gone.
    Destroyed,
}

impl fmt::Display for KeyState {
    /// As in JSON.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(out)
    }
}

/// A version of a key. Times are RFC 3339, UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Key {
    /// `record`, `fingerprint`, `holder`, `envelope`, `jwt` or `audit`.
    pub purpose: String,
    /// Counts from 1.
    pub version: u32,
    /// Where it stands.
    pub state: KeyState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
    /// When it was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed_at: Option<Timestamp>,
    /// How old it is, in seconds.
    pub age: u64,
    /// When its cryptoperiod is over.
    pub ends_at: Timestamp,
    /// How many records depend on it: the census. Not there for a key that records do not depend on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// How many encryptions were counted under it. Not there for a key that does not encrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryptions: Option<u64>,
    /// Until when a JWT or an envelope may need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_until: Option<Timestamp>,
    /// What an operator should see to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The answer of `GET /v1/keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Keys {
    /// Every key there is or was, by purpose and version.
    pub keys: Vec<Key>,
}

/// How the rewrap job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RewrapState {
    /// There never was one.
    Idle,
    /// It is on its way.
    Running,
    /// It waits for the HSM or the store to come back.
    Waiting,
    /// It is done: retired keys hold no records.
    Done,
    /// It ended, and some records could not be opened.
    Incomplete,
}

impl fmt::Display for RewrapState {
    /// As in JSON.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(out)
    }
}

/// The answer of `GET` and `POST /v1/rewrap`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rewrap {
    /// How it stands.
    pub state: RewrapState,
    /// When it was started; RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended; RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Records that were brought to the active keys.
    pub done: u64,
    /// Records that retired keys still hold, of the purpose that has most left.
    pub left: u64,
    /// Records that could not be opened.
    pub failed: u64,
    /// Records a second since the job was started or resumed.
    pub rate: f64,
    /// Seconds until it is done, at this rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<u64>,
}

/// The answer of `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Status {
    /// Version of vaultd.
    pub version: String,
    /// How long it has been serving, in seconds.
    pub uptime: u64,
    /// Whether every check passed.
    pub ready: bool,
    /// The result for each of `hsm`, `store` and `audit`.
    pub checks: BTreeMap<String, Check>,
    /// How many records there are.
    pub records: u64,
    /// Every key there is or was.
    pub keys: Vec<Key>,
    /// The rewrap job.
    pub rewrap: Rewrap,
}

/// The answer of `POST /v1/reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reloaded {
    /// Issuers that are trusted now, the vault itself included.
    pub issuers: usize,
    /// Rules for peers that may log in now.
    pub peers: usize,
}
