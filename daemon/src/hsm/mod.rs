//! Every secret operation, inside a PKCS#11 token.
//!
//! The door is [`Hsm`]: five operations (seal, open, fingerprint, sign, random), each a value in and a value out, run
//! by a pool of threads that own one session each. Nothing here knows what a card is, and nothing depends on which
//! vendor's module is loaded: the module is asked what it can do.
//!
//! Keys never leave the token. They are found by label once, vetted, and used as session-object copies where the
//! module allows it, because many modules read a token object anew for each operation.

mod breaker;
mod check_value;
mod class;
mod connection;
mod crew;
mod direct;
mod error;
mod examine;
mod generate;
mod keys;
mod library;
mod lifecycle;
mod link;
mod manner;
mod mechanisms;
mod module;
mod operations;
mod pool;
mod provision;
mod random;
mod stats;
mod token;
mod vetting;
mod watch;
mod worker;

pub use check_value::CheckValue;
pub use error::{HsmError, SetupError};
pub use examine::{Finding, examine, rehearse};
pub use keys::{KeyInfo, KeyName, Operation, Purpose, RsaPublic};
pub use library::{Library, set_module_environment};
pub use mechanisms::MechanismNeed;
pub use operations::{MAC_BYTES, NONCE_BYTES, OpenRequest, Opened, SealRequest, Sealed, TAG_BYTES};
pub use pool::{Hsm, Settings};
pub use provision::{Provisioned, Provisioner, initialize_token};
pub use token::TokenSelector;
