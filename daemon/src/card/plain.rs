//! Text as it is looked through for card data: people and programs write one digit in many ways.

use icu_normalizer::ComposingNormalizer;
use icu_properties::props::{EnumeratedProperty, GeneralCategory};
use zeroize::Zeroizing;

/// `text` in compatibility forms (NFKC: full width, circled, superscript), with the decimal digits of every script as
/// ASCII ones.
pub fn plain(text: &str) -> Zeroizing<String> {
    let composed = Zeroizing::new(ComposingNormalizer::new_nfkc().normalize(text).into_owned());
    Zeroizing::new(composed.chars().map(|c| ascii_digit(c).unwrap_or(c)).collect())
}

/// The ASCII digit that `c` is in another script. Unicode has decimal digits in rows of ten, from zero on, always (Unicode
/// Standard, 4.6), so that those right before one say which it is, however many rows there are.
fn ascii_digit(c: char) -> Option<char> {
    let is_digit = |c: char| GeneralCategory::for_char(c) == GeneralCategory::DecimalNumber;
    if c.is_ascii() || !is_digit(c) {
        return None;
    }
    let before = (char::MIN..c).rev().take_while(|c| is_digit(*c)).count();
    char::from_digit(u32::try_from(before % 10).ok()?, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_every_script_are_digits() {
        for (written, meant) in [
            ("\u{ff14}\u{ff11}", "41"),
            ("\u{660}\u{669} \u{6f5}", "09 5"),
            ("\u{966}\u{96f}\u{e50}\u{e59}", "0909"),
            ("\u{1d7ce}\u{1d7d7}\u{1d7d8}\u{1d7ff}", "0909"),
            ("\u{2463}\u{b9}\u{2082}", "412"),
            ("Ada 4-1\u{e9}", "Ada 4-1\u{e9}"),
        ] {
            assert_eq!(*plain(written), meant);
        }
        let zeros = ('\u{80}'..=char::MAX).filter(|c| ascii_digit(*c) == Some('0')).count();
        let nines = ('\u{80}'..=char::MAX).filter(|c| ascii_digit(*c) == Some('9')).count();
        assert!(zeros == nines && zeros > 60, "{zeros} {nines}");
    }
}
