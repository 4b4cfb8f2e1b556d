//! The date a card ends.

use zeroize::{Zeroize, ZeroizeOnDrop};

const MAX_LEN: usize = 7;

/// A card's expiry date in one of the forms people write, kept as it came. Wiped on drop, not printable.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct CardExpiry {
    text: [u8; MAX_LEN],
    len: usize,
}

/// The text is not an expiry date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expiry_date must be MM/YY, MM/YYYY, MMYY or YYYY-MM with a month of 01 to 12")]
pub struct CardExpiryError;

impl CardExpiry {
    /// Reads `MM/YY`, `MM/YYYY`, `MMYY` or `YYYY-MM`.
    ///
    /// # Errors
    /// [`CardExpiryError`] for any other form and for a month that does not exist.
    pub fn parse(text: &str) -> Result<Self, CardExpiryError> {
        let month = match text.as_bytes() {
            [m1, m2, b'/', rest @ ..] if matches!(rest.len(), 2 | 4) && all_digits(rest) => [*m1, *m2],
            [m1, m2, rest @ ..] if rest.len() == 2 && all_digits(rest) => [*m1, *m2],
            [year @ .., b'-', m1, m2] if year.len() == 4 && all_digits(year) => [*m1, *m2],
            _ => return Err(CardExpiryError),
        };
        let real_month = matches!(month, [b'0', b'1'..=b'9'] | [b'1', b'0'..=b'2']);
        let mut expiry = Self { text: [0; MAX_LEN], len: text.len() };
        match expiry.text.get_mut(..text.len()) {
            Some(room) if real_month => room.copy_from_slice(text.as_bytes()),
            _ => return Err(CardExpiryError),
        }
        Ok(expiry)
    }

    /// The date as it came. The caller must not copy it into anything that is not wiped.
    pub fn as_str(&self) -> &str {
        self.text.get(..self.len).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

fn all_digits(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_forms_come_back_as_they_were() {
        for text in ["12/29", "01/2031", "0930", "2029-11"] {
            assert_eq!(CardExpiry::parse(text).ok().unwrap().as_str(), text);
        }
    }

    #[test]
    fn other_forms_and_months_are_refused() {
        for text in
            ["", "13/29", "00/29", "1/29", "12/290", "12-29", "2029-13", "2029/12", "12 29", "ab/cd", "¹²/29"]
        {
            assert!(CardExpiry::parse(text).is_err(), "{text}");
        }
    }
}
