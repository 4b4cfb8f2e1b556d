//! The check digit (ISO/IEC 7812-1, annex B).

/// Whether ASCII `digits` end in the right check digit. False for anything but digits, and for none.
pub fn luhn_valid(digits: &[u8]) -> bool {
    let mut sum = 0_u32;
    for (position, digit) in digits.iter().rev().enumerate() {
        if !digit.is_ascii_digit() {
            return false;
        }
        let value = u32::from(digit - b'0');
        sum += match (position % 2, value) {
            (0, _) => value,
            (_, 0..=4) => value * 2,
            (_, _) => value * 2 - 9,
        };
    }
    !digits.is_empty() && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_test_cards_pass() {
        for pan in ["4111111111111111", "5555555555554444", "378282246310005", "6011111111111117"] {
            assert!(luhn_valid(pan.as_bytes()), "{pan}");
        }
    }

    #[test]
    fn nothing_and_letters_fail() {
        assert!(!luhn_valid(b""));
        assert!(!luhn_valid(b"411111111111111a"));
    }

    proptest! {
        #[test]
        fn exactly_one_check_digit_fits(body in "[0-9]{11,18}") {
            let fitting = (b'0'..=b'9')
                .filter(|check| luhn_valid(&[body.as_bytes(), &[*check]].concat()))
                .count();
            prop_assert_eq!(fitting, 1);
        }
    }
}
