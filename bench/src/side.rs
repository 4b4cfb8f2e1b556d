//! What can be measured.

use clap::ValueEnum;
use serde::Serialize;

use crate::load::Route;

/// Something that is measured: most are sampled in rounds, the last ones are stages of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Side {
    Detokenize,
    DetokenizeUnaudited,
    EmptyHandler,
    TokenizeSeen,
    TokenizeNew,
    #[serde(rename = "redb_by_64")]
    #[value(name = "redb_by_64")]
    RedbBy64,
    TokenizeBatch,
    TokenizeBatchWide,
    #[serde(rename = "redb_by_1000")]
    #[value(name = "redb_by_1000")]
    RedbBy1000,
    HsmPair,
    DetokenizeBatch,
    DetokenizeBatchWide,
    HsmOpen,
    DetokenizeAlone,
    UnknownToken,
    ForeignToken,
    DetokenizeSlowHsm,
    /// Rates with one connection to hundreds.
    Connections,
    /// Latencies at fixed rates.
    OpenLoop,
    /// Costs with ten thousand tokens to ten million.
    StoreSizes,
    /// Time to the first answer with ten million tokens.
    Restarts,
    /// Memory of an idle vault and with ten thousand connections.
    Memory,
    /// Callers while all keys are rotated.
    Rotation,
    /// What a user might take instead.
    Alternatives,
}

impl Side {
    /// Every one that is sampled in rounds, the vault's beside their ceilings.
    pub(crate) fn sampled() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied().filter(|side| *side < Self::Connections)
    }

    /// The request, with the connections that the budget names; none for what is no request or has a target of its own.
    pub(crate) fn route(self) -> Option<Route> {
        let route = |path, expected, connections| Some(Route { path, expected, connections });
        match self {
            Self::Detokenize | Self::DetokenizeUnaudited | Self::EmptyHandler => {
                route("/v1/detokenize", 200, CONNECTIONS)
            }
            Self::DetokenizeAlone => route("/v1/detokenize", 200, 1),
            Self::UnknownToken | Self::ForeignToken => route("/v1/detokenize", 404, 1),
            Self::TokenizeSeen => route("/v1/tokenize", 200, CONNECTIONS),
            Self::TokenizeNew => route("/v1/tokenize", 201, CONNECTIONS),
            Self::TokenizeBatch => route("/v1/tokenize/batch", 200, 1),
            Self::TokenizeBatchWide => route("/v1/tokenize/batch", 200, WIDE),
            Self::DetokenizeBatch => route("/v1/detokenize/batch", 200, 1),
            Self::DetokenizeBatchWide => route("/v1/detokenize/batch", 200, WIDE),
            _ => None,
        }
    }
}

/// The budget's number of connections.
pub(crate) const CONNECTIONS: u64 = 64;
/// Batches at once in a wide run, so that one can be parsed while another is committed.
pub(crate) const WIDE: u64 = 4;
