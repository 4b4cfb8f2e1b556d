//! Which network a card belongs to, by the first digits of its PAN (ISO/IEC 7812-1).

use vault_api::Brand;

/// The brand of a PAN that starts with the six digits `bin` and has `digits` digits in all. Ranges as the networks
/// publish them; the first that fits counts.
pub(super) fn brand_of(bin: u32, digits: usize) -> Brand {
    let (one, two, three, four) = (bin / 100_000, bin / 10_000, bin / 1_000, bin / 100);
    match digits {
        13 | 16 | 19 if one == 4 => Brand::Visa,
        16 if (51..=55).contains(&two) || (222_100..=272_099).contains(&bin) => Brand::Mastercard,
        15 if two == 34 || two == 37 => Brand::Amex,
        16..=19 if (2200..=2204).contains(&four) => Brand::Mir,
        16..=19 if four == 6011 || two == 65 || (644..=649).contains(&three) => Brand::Discover,
        16..=19 if two == 62 => Brand::Unionpay,
        16..=19 if (3528..=3589).contains(&four) => Brand::Jcb,
        14..=19 if (300..=305).contains(&three) || matches!(two, 36 | 38 | 39) => Brand::Diners,
        12..=19 if two == 50 || (56..=69).contains(&two) => Brand::Maestro,
        _ => Brand::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_test_cards_have_their_brand() {
        for (pan, brand) in [
            ("4111111111111111", Brand::Visa),
            ("4222222222222", Brand::Visa),
            ("5555555555554444", Brand::Mastercard),
            ("2223003122003222", Brand::Mastercard),
            ("378282246310005", Brand::Amex),
            ("6011111111111117", Brand::Discover),
            ("30569309025904", Brand::Diners),
            ("3530111333300000", Brand::Jcb),
            ("6200000000000005", Brand::Unionpay),
            ("6759649826438453", Brand::Maestro),
            ("2200770212727079", Brand::Mir),
            ("9999999999999995", Brand::Unknown),
        ] {
            let bin = pan[..6].parse().unwrap();
            assert_eq!(brand_of(bin, pan.len()), brand, "{pan}");
        }
    }
}
