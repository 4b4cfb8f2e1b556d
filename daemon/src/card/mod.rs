//! Card numbers as values that cannot be wrong and wipe themselves.
//!
//! The door is [`Pan::parse`]. Nothing here can print a PAN: [`Pan`] has no `Debug` and no `Display`, and the one
//! way to its digits is [`Pan::digits`].

mod brand;
mod cvv;
mod expiry;
mod luhn;
mod pan;
mod plain;

pub use cvv::{is_cvv_name, tells_cvv};
pub use expiry::{CardExpiry, CardExpiryError};
pub use luhn::luhn_valid;
pub use pan::{MAX_PAN_DIGITS, MIN_PAN_DIGITS, Masked, Pan, PanError};
pub use plain::plain;
