//! Minting: new tokens from HSM random, never computed from the PAN.

use zeroize::Zeroizing;

use super::{Format, LuhnRule, Token, VaultError, now_ms, token::OPAQUE_BYTES};
use crate::{
    card::{MAX_PAN_DIGITS, Pan, luhn_valid},
    hsm::Hsm,
};

/// Bytes of random in a UUID of version 7 (74 bits, RFC 9562, 5.7).
const UUID_RANDOM_BYTES: usize = 10;

/// A new token for `pan` in `format`. Whether it is free is for the store to say.
pub(super) async fn mint(hsm: &Hsm, format: Format, pan: &Pan) -> Result<Token, VaultError> {
    match format {
        Format::Uuid => {
            let mut random = [0; UUID_RANDOM_BYTES];
            hsm.random(&mut random).await?;
            Ok(Token::Uuid(uuid::Builder::from_unix_timestamp_millis(now_ms(), &random).into_uuid()))
        }
        Format::Opaque => {
            let mut random = [0; OPAQUE_BYTES];
            hsm.random(&mut random).await?;
            Ok(Token::Opaque(random))
        }
        Format::Numeric { keep_first, keep_last, luhn } => loop {
            let mut candidate = candidate(pan.digits(), keep_first, keep_last);
            fill_digits(hsm, candidate.random_digits()).await?;
            if candidate.fits(luhn) && candidate.text() != pan.digits() {
                return Token::numeric(candidate.text());
            }
        },
    }
}

/// A number with the PAN's length and some of its digits; the others are still to be drawn.
struct Candidate {
    digits: Zeroizing<[u8; MAX_PAN_DIGITS]>,
    len: usize,
    random: std::ops::Range<usize>,
}

/// Keeps what the template says of `pan`: ten digits at most, so that two of the shortest remain to be drawn.
fn candidate(pan: &[u8], keep_first: usize, keep_last: usize) -> Candidate {
    let random = keep_first..pan.len().saturating_sub(keep_last);
    let mut digits = Zeroizing::new([0; MAX_PAN_DIGITS]);
    for (at, (place, digit)) in digits.iter_mut().zip(pan).enumerate() {
        if !random.contains(&at) {
            *place = *digit;
        }
    }
    Candidate { digits, len: pan.len(), random }
}

impl Candidate {
    fn text(&self) -> &[u8] {
        self.digits.get(..self.len).unwrap_or_default()
    }

    fn random_digits(&mut self) -> &mut [u8] {
        self.digits.get_mut(self.random.clone()).unwrap_or_default()
    }

    fn fits(&self, rule: LuhnRule) -> bool {
        match rule {
            LuhnRule::Any => true,
            LuhnRule::Valid => luhn_valid(self.text()),
            LuhnRule::Invalid => !luhn_valid(self.text()),
        }
    }
}

/// Fills `digits` with uniform ASCII digits.
pub(super) async fn fill_digits(hsm: &Hsm, digits: &mut [u8]) -> Result<(), VaultError> {
    let mut random = Zeroizing::new([0; 2 * MAX_PAN_DIGITS]);
    let mut missing = digits.iter_mut();
    let mut next = missing.next();
    while next.is_some() {
        hsm.random(random.as_mut_slice()).await?;
        for digit in random.iter().filter_map(|byte| uniform_digit(*byte)) {
            let Some(place) = next else { break };
            *place = digit;
            next = missing.next();
        }
    }
    Ok(())
}

/// An ASCII digit from a random byte, or `None` for a byte that would favour the small ones.
fn uniform_digit(byte: u8) -> Option<u8> {
    (byte < 250).then_some(b'0' + byte % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_has_the_same_chance() {
        let mut counts = [0; 10];
        for digit in (0..=u8::MAX).filter_map(uniform_digit) {
            counts[usize::from(digit - b'0')] += 1;
        }
        assert_eq!(counts, [25; 10]);
    }

    #[test]
    fn a_candidate_keeps_what_the_template_says() {
        let kept = candidate(b"4111111111111111", 6, 4);
        assert_eq!(kept.random, 6..12);
        assert_eq!(kept.text(), b"411111\0\0\0\0\0\x001111", "and nothing else of the PAN");
        assert_eq!(candidate(b"4111111111111111", 0, 0).random, 0..16);
    }

    #[test]
    fn a_short_pan_keeps_as_many_digits() {
        assert_eq!(candidate(b"378282246310005", 6, 4).random, 6..11);
        assert_eq!(candidate(b"123456789012", 6, 4).random, 6..8);
        assert_eq!(candidate(b"123456789012", 0, 10).random, 0..2);
    }
}
