//! What a JWT may allow.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! scopes {
    // `$name` is a `tt` so that utoipa sees the literal itself: of a `literal` it would not take the name.
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:tt;)+) => {
        /// A permission, as it stands in the `scope` claim (RFC 8693, 4.2).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[non_exhaustive]
        pub enum Scope {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Scope {
            /// Every scope.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The scope as it is written in a JWT.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }

        impl FromStr for Scope {
            type Err = ();

            /// `Err(())` for a scope this version does not know.
            fn from_str(name: &str) -> Result<Self, ()> {
                match name { $($name => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}

scopes! {
    /// Swap PANs for tokens.
    Tokenize = "tokenize";
    /// Swap tokens back for PANs.
    Detokenize = "detokenize";
    /// See masked PANs.
    DetokenizeMasked = "detokenize:masked";
    /// Read records without the PAN.
    TokensRead = "tokens:read";
    /// Change metadata and expiry.
    TokensWrite = "tokens:write";
    /// Delete tokens.
    TokensDelete = "tokens:delete";
    /// Find tokens by holder or PAN.
    TokensSearch = "tokens:search";
    /// Compare a PAN with a token.
    TokensCompare = "tokens:compare";
    /// Seal payment envelopes.
    EnvelopesSeal = "envelopes:seal";
    /// Open payment envelopes.
    EnvelopesOpen = "envelopes:open";
    /// See keys, the rewrap job and the daemon's status.
    KeysRead = "keys:read";
    /// Rotate keys, and rewrap records.
    KeysRotate = "keys:rotate";
    /// Destroy retired keys.
    KeysDestroy = "keys:destroy";
    /// Have the configuration read again.
    ConfigReload = "config:reload";
    /// Read the audit log.
    AuditRead = "audit:read";
    /// See which subjects are locked.
    LocksRead = "locks:read";
    /// Unlock subjects.
    LocksRemove = "locks:remove";
    /// See honey tokens.
    HoneyRead = "honey:read";
    /// Plant and remove honey tokens.
    HoneyPlant = "honey:plant";
    /// Approve what another caller asks for.
    Approve = "approve";
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
