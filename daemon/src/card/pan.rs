//! The primary account number.

use vault_api::Brand;
use zeroize::Zeroizing;

use super::{brand::brand_of, luhn_valid};

/// The fewest digits a PAN may have.
pub const MIN_PAN_DIGITS: usize = 12;
/// The most digits a PAN may have (ISO/IEC 7812-1, 4.1).
pub const MAX_PAN_DIGITS: usize = 19;

/// A primary account number: 12 to 19 ASCII digits, wiped on drop, neither printable nor cloneable.
///
/// The digits are on the heap: were they in the value itself, each move of it would leave a copy on the stack.
pub struct Pan {
    digits: Zeroizing<Vec<u8>>,
}

/// Why a text is not a PAN. Says nothing about the digits themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PanError {
    /// A character that is neither digit nor separator.
    #[error("the PAN may hold only digits, with single spaces or hyphens between groups")]
    Character,
    /// Too few or too many digits.
    #[error("the PAN must have {MIN_PAN_DIGITS} to {MAX_PAN_DIGITS} digits")]
    Length,
    /// The last digit is not the check digit of the others.
    #[error("the PAN fails its check digit (Luhn): a digit is wrong or two are swapped")]
    CheckDigit,
}

impl Pan {
    /// Reads 12 to 19 ASCII digits; single spaces or hyphens between digits are removed.
    ///
    /// The check digit is not looked at: whether it must fit is the template's matter ([`Pan::luhn_valid`]).
    ///
    /// # Errors
    /// [`PanError::Character`] or [`PanError::Length`].
    pub fn parse(text: &str) -> Result<Self, PanError> {
        // All the room it can need, so that the digits never move.
        let mut digits = Zeroizing::new(Vec::with_capacity(MAX_PAN_DIGITS));
        let mut after_digit = false;
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' => {
                    if digits.len() == MAX_PAN_DIGITS {
                        return Err(PanError::Length);
                    }
                    digits.push(byte);
                    after_digit = true;
                }
                b' ' | b'-' if after_digit => after_digit = false,
                _ => return Err(PanError::Character),
            }
        }
        if !digits.is_empty() && !after_digit {
            return Err(PanError::Character);
        }
        if digits.len() < MIN_PAN_DIGITS {
            return Err(PanError::Length);
        }
        Ok(Self { digits })
    }

    /// The digits as ASCII. The caller must not copy them into anything that is not wiped.
    pub fn digits(&self) -> &[u8] {
        &self.digits
    }

    /// The digits as text, under the same rule as [`Pan::digits`].
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.digits()).unwrap_or_default()
    }

    /// Whether the check digit fits.
    pub fn luhn_valid(&self) -> bool {
        luhn_valid(self.digits())
    }

    /// What may be shown of the PAN (PCI DSS 3.4.1: at most BIN and last four).
    pub fn masked(&self) -> Masked {
        let digits = self.digits();
        let number = |part: &[u8]| part.iter().fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0'));
        let (bin, _) = digits.split_at(Masked::BIN_DIGITS.min(digits.len()));
        let (_, last4) = digits.split_at(digits.len().saturating_sub(Masked::LAST_DIGITS));
        Masked { bin: number(bin), last4: number(last4), len: digits.len() }
    }
}

/// What may be shown of a PAN: its BIN, last four digits and length, and the brand that follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    bin: u32,
    last4: u32,
    len: usize,
}

impl Masked {
    const BIN_DIGITS: usize = 6;
    const LAST_DIGITS: usize = 4;

    /// Puts a mask together from what a record holds; `None` if a number is out of its range.
    pub fn new(bin: u32, last4: u32, len: usize) -> Option<Self> {
        let fits = bin < 1_000_000 && last4 < 10_000 && (MIN_PAN_DIGITS..=MAX_PAN_DIGITS).contains(&len);
        fits.then_some(Self { bin, last4, len })
    }

    /// The first six digits as a number.
    pub fn bin_number(&self) -> u32 {
        self.bin
    }

    /// The last four digits as a number.
    pub fn last4_number(&self) -> u32 {
        self.last4
    }

    /// How many digits the PAN has.
    pub fn pan_digits(&self) -> usize {
        self.len
    }

    /// The brand by the BIN.
    pub fn brand(&self) -> Brand {
        brand_of(self.bin, self.len)
    }

    /// The first six digits.
    pub fn bin(&self) -> String {
        format!("{:06}", self.bin)
    }

    /// The last four digits.
    pub fn last4(&self) -> String {
        format!("{:04}", self.last4)
    }

    /// The whole mask, as in `411111******1111`.
    pub fn text(&self) -> String {
        let hidden = self.len - Self::BIN_DIGITS - Self::LAST_DIGITS;
        format!("{:06}{:*<hidden$}{:04}", self.bin, "", self.last4)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn groups_are_joined() {
        for text in ["4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "4111 1111-11111111"] {
            assert_eq!(Pan::parse(text).ok().unwrap().as_str(), "4111111111111111", "{text}");
        }
    }

    #[test]
    fn other_characters_and_stray_separators_are_refused() {
        for text in [
            "4111 1111 1111 111x",
            " 4111111111111111",
            "4111111111111111 ",
            "4111  111111111111",
            "4111-",
            "-4111111111111111",
            "4111.1111.1111.1111",
            "４１１１１１１１１１１１１１１１",
            "41111111\u{0}11111111",
        ] {
            assert_eq!(Pan::parse(text).err(), Some(PanError::Character), "{text:?}");
        }
    }

    #[test]
    fn eleven_and_twenty_digits_are_refused() {
        for text in ["", "12345678901", "12345678901234567890"] {
            assert_eq!(Pan::parse(text).err(), Some(PanError::Length), "{text}");
        }
    }

    #[test]
    fn the_mask_shows_six_and_four() {
        let masked = Pan::parse("4111111111111111").ok().unwrap().masked();
        assert_eq!(masked.text(), "411111******1111");
        assert_eq!((masked.bin().as_str(), masked.last4().as_str()), ("411111", "1111"));
        assert_eq!(Pan::parse("000000000000").ok().unwrap().masked().text(), "000000**0000");
    }

    proptest! {
        #[test]
        fn any_grouping_of_digits_parses_to_the_digits(digits in "[0-9]{12,19}", cuts in any::<u32>()) {
            let grouped: String = digits
                .char_indices()
                .flat_map(|(i, digit)| {
                    let separator = (i > 0 && cuts & (1 << i) != 0).then_some('-');
                    separator.into_iter().chain([digit])
                })
                .collect();
            let pan = Pan::parse(&grouped).ok().unwrap();
            prop_assert_eq!(pan.as_str(), &digits);
            let masked = pan.masked();
            let again = Masked::new(masked.bin, masked.last4, masked.len);
            prop_assert_eq!(again, Some(masked));
            prop_assert_eq!(masked.text().len(), digits.len());
        }

        #[test]
        fn no_text_makes_it_fail(text in "\\PC{0,40}") {
            let _ = Pan::parse(&text);
        }
    }
}
