//! What may come with a card.

use vault_api::{Metadata, MetadataValue};
use zeroize::Zeroizing;

use super::{MAX_EXPIRES_IN_S, VaultError};
use crate::card::{Masked, is_cvv_name, plain, tells_cvv};

const MAX_WORDS_CHARS: usize = 200;
/// The most names in metadata.
pub const MAX_METADATA_NAMES: usize = 32;
/// The longest of them.
pub const MAX_METADATA_NAME_BYTES: usize = 64;
/// The longest text of one.
pub const MAX_METADATA_TEXT_BYTES: usize = 512;

/// A lifetime of 1 second to a hundred years.
pub(super) fn vet_expires_in(seconds: u64) -> Result<(), VaultError> {
    if (1..=MAX_EXPIRES_IN_S).contains(&seconds) {
        Ok(())
    } else {
        Err(VaultError::Request(format!("expires_in must be 1 to {MAX_EXPIRES_IN_S} seconds")))
    }
}

/// A name, and neither the PAN, because whoever may read holders need not be one who may read PANs, nor a card verification
/// value.
pub(super) fn vet_holder(holder: &str, card: &Masked) -> Result<(), VaultError> {
    vet_name(holder)?;
    if holds(holder, card) {
        return Err(VaultError::Request("holder holds the card number: give the name".to_owned()));
    }
    if tells_cvv(holder) {
        return Err(VaultError::Request(
            "a card verification value is never stored: give the name".to_owned(),
        ));
    }
    Ok(())
}

/// A name that a card can have been given.
pub(super) fn vet_name(holder: &str) -> Result<(), VaultError> {
    vet_words("holder", holder)
}

/// Words that fit into a line: the text of the member `name`.
pub(super) fn vet_words(name: &str, text: &str) -> Result<(), VaultError> {
    if (1..=MAX_WORDS_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(VaultError::Request(format!(
            "{name} must be 1 to {MAX_WORDS_CHARS} characters without control characters"
        )))
    }
}

/// Metadata without a number that could be `card`'s.
pub(super) fn vet_metadata_beside(metadata: &Metadata, card: &Masked) -> Result<(), VaultError> {
    for (name, value) in &metadata.0 {
        if holds(name, card) || holds(&text_of(value), card) {
            return Err(VaultError::Request("metadata holds the card number: leave it out".to_owned()));
        }
    }
    Ok(())
}

fn text_of(value: &MetadataValue) -> Zeroizing<String> {
    match value {
        MetadataValue::Text(text) => Zeroizing::new(text.clone()),
        MetadataValue::Number(number) => Zeroizing::new(number.to_string()),
        MetadataValue::Bool(_) => Zeroizing::default(),
    }
}

/// Small metadata without a card verification value, which is never stored (PCI DSS 3.3.1).
///
/// The bounds keep the JSON of holder and metadata below the 64 KiB that a record has room for: control characters,
/// which take six bytes each there, are refused.
pub(super) fn vet_metadata(metadata: &Metadata) -> Result<(), VaultError> {
    let refuse = |why: String| Err(VaultError::Request(why));
    if metadata.0.len() > MAX_METADATA_NAMES {
        return refuse(format!("metadata may have {MAX_METADATA_NAMES} names at most"));
    }
    for (name, value) in &metadata.0 {
        let text = text_of(value);
        if name.is_empty() || name.len() > MAX_METADATA_NAME_BYTES {
            return refuse(format!("a name in metadata must have 1 to {MAX_METADATA_NAME_BYTES} bytes"));
        }
        if text.len() > MAX_METADATA_TEXT_BYTES {
            return refuse(format!("a value in metadata may have {MAX_METADATA_TEXT_BYTES} bytes at most"));
        }
        if name.chars().any(char::is_control)
            || text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
        {
            return refuse("metadata must not hold control characters".to_owned());
        }
        if is_cvv_name(name) || tells_cvv(&text) {
            return refuse("a card verification value is never stored: leave it out of metadata".to_owned());
        }
    }
    Ok(())
}

/// Whether there is a number in `text` that is masked as `card` is, be it that card's or not: an answer that depended on the digits
/// in between would tell them to whoever may write metadata and not reveal cards. Digits are those of any script.
fn holds(text: &str, card: &Masked) -> bool {
    let digits: Zeroizing<String> =
        Zeroizing::new(plain(text).chars().filter(char::is_ascii_digit).collect());
    let (first, last) = (card.bin(), card.last4());
    let is_alike = |number: &[u8]| number.starts_with(first.as_bytes()) && number.ends_with(last.as_bytes());
    digits.as_bytes().windows(card.pan_digits()).any(is_alike)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{card::Pan, hsm::TAG_BYTES, vault::card_sealing::Private};

    fn card() -> Masked {
        Pan::parse("4111111111111111").ok().unwrap().masked()
    }

    fn vet_both(metadata: &Metadata) -> Result<(), VaultError> {
        vet_metadata(metadata)?;
        vet_metadata_beside(metadata, &card())
    }

    #[test]
    fn neither_card_number_nor_verification_value_is_kept() {
        let refused = |name: &str, text: &str| {
            let value = MetadataValue::Text(text.to_owned());
            vet_both(&Metadata([(name.to_owned(), value)].into())).is_err()
        };
        for name in ["cvv", "CVV2", "c_v_c", "Security Code", "card-verification-value", "cav2"] {
            assert!(refused(name, "123"), "{name}");
        }
        for name in ["card_cvv", "cvc_check", "card_security_code", "cardCode", "verification_value", "icvv"]
        {
            assert!(refused(name, "123"), "{name}");
        }
        assert!(refused("note", "cvv 123") && refused("note", "paid with CVC: 1234"));
        assert!(!refused("recv_value", "123") && !refused("note", "cvv matched, order 1234"));
        assert!(vet_holder("Ada Lovelace CVV 123", &card()).is_err());
        assert!(refused("note", "card 4111-1111 1111.1111"));
        assert!(refused("note", "\u{1}"));
        assert!(refused("note", "not this card, but nobody is to learn that: 4111119876541111"));
        assert!(!refused("note", "two\nlines, 4111"));
        assert!(vet_holder("4111 1111 1111 1111", &card()).is_err());
        assert!(vet_holder("Ada Lovelace", &card()).is_ok());
    }

    #[test]
    fn a_card_number_is_known_in_the_digits_of_any_script() {
        let in_script = |zero: char| {
            let digit = |c: char| char::from_u32(u32::from(zero) + c.to_digit(10)?);
            "4111111111111111".chars().filter_map(digit).collect::<String>()
        };
        for zero in ['\u{ff10}', '\u{660}', '\u{6f0}', '\u{966}', '\u{17e0}', '\u{1d7ec}', '\u{1e950}'] {
            let number = in_script(zero);
            let kept = |name: &str, text: &str| {
                let value = MetadataValue::Text(text.to_owned());
                vet_both(&Metadata([(name.to_owned(), value)].into())).is_ok()
            };
            assert!(vet_holder(&number, &card()).is_err(), "{number}");
            assert!(!kept("note", &number) && !kept(&number, "note") && kept("note", "4111"), "{number}");
            let verification: String = number.chars().take(3).collect();
            assert!(!kept("note", &format!("\u{ff23}\u{ff36}\u{ff36} {verification}")), "{number}");
        }
        assert!(vet_holder("\u{2463}111 1111 1111 1111", &card()).is_err());
    }

    #[test]
    fn what_passes_has_room_in_a_record() {
        // The most that can be said, in characters that JSON writes with two bytes.
        let holder = "\u{1d11e}".repeat(MAX_WORDS_CHARS);
        let entry = |n: usize| {
            let name = format!("{n:02}{}", "\"".repeat(MAX_METADATA_NAME_BYTES - 2));
            (name, MetadataValue::Text("\\".repeat(MAX_METADATA_TEXT_BYTES)))
        };
        let metadata = Metadata((0..MAX_METADATA_NAMES).map(entry).collect());
        assert!(vet_both(&metadata).is_ok() && vet_holder(&holder, &card()).is_ok());
        let text = Private { holder: Some(holder.as_str().into()), metadata }.text().unwrap();
        assert!(u16::try_from(text.len() + TAG_BYTES).is_ok(), "{} bytes", text.len());
    }
}
