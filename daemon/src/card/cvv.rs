//! Card verification values: known by what they are called only, because none is ever kept (PCI DSS 3.3.1.2).
//!
//! Names are English ones, in one word or several. What is looked for within other words is in no ordinary one, and never
//! goes over the end of a word: `recv_value` is no `cvv`.

use super::plain::plain;

/// In whatever word: `cvv2`, `icvv`, `cvcnumber`.
const ROOTS: [&str; 4] = ["cvv", "cvc", "cvn", "cav2"];
/// As a word, with or without digits after it: too short to be looked for within words.
const WORDS: [&str; 3] = ["csc", "cvd", "cv2"];
/// In whatever name, once its words are put together.
const PHRASES: [&str; 9] = [
    "securitycode",
    "verificationvalue",
    "verificationcode",
    "cardverificationnumber",
    "cardvalidationcode",
    "cardvalidationvalue",
    "cardauthenticationvalue",
    "cardsecuritynumber",
    "cardsecurityvalue",
];
/// As a whole name: part of another it means other things, as `cid` does.
const NAMES: [&str; 8] =
    ["cid", "cardcid", "cardcode", "cardcsc", "csccode", "cvcode", "cvnumber", "cvvalue"];
/// What may stand between a name and its value.
const FILLERS: [&str; 9] = ["2", "code", "is", "nr", "no", "num", "number", "value", "was"];

/// Whether a field of this name is meant to hold a card verification value; case, spaces and separators do not
/// matter.
pub fn is_cvv_name(name: &str) -> bool {
    let words = words(name);
    let whole = words.concat();
    words.iter().any(|word| is_cvv_word(word))
        || PHRASES.iter().any(|phrase| whole.contains(phrase))
        || NAMES.contains(&whole.as_str())
        || ROOTS.contains(&without_number(&whole))
}

/// Whether `text` gives a card verification value under its name, as in `CVV: 123`.
pub fn tells_cvv(text: &str) -> bool {
    let words = words(text);
    words.iter().enumerate().any(|(at, word)| {
        let name = without_number(word);
        match word.len() - name.len() {
            3 | 4 if name.is_empty() => ends_in_cvv_name(words.get(..at).unwrap_or_default()),
            // The fifth is that of `cvv2`.
            3..=5 => is_cvv_word(name),
            _ => false,
        }
    })
}

fn ends_in_cvv_name(mut words: &[String]) -> bool {
    const LONGEST_PHRASE: usize = 3;
    while let Some((last, before)) = words.split_last() {
        let phrase = words.get(words.len().saturating_sub(LONGEST_PHRASE)..).unwrap_or_default().concat();
        if is_cvv_word(last) || PHRASES.iter().any(|name| phrase.ends_with(name)) {
            return true;
        }
        if !FILLERS.contains(&last.as_str()) {
            return false;
        }
        words = before;
    }
    false
}

fn is_cvv_word(word: &str) -> bool {
    ROOTS.iter().any(|root| word.contains(root))
        || WORDS.contains(&word)
        || WORDS.contains(&without_number(word))
}

fn without_number(word: &str) -> &str {
    word.trim_end_matches(|c: char| c.is_ascii_digit())
}

/// The words of `text` in [`plain`] lower case. A capital after another letter's small one begins a word.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_small = false;
    for c in plain(text).chars() {
        if !c.is_alphanumeric() || (after_small && c.is_uppercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        after_small = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_verification_values_are_known_in_whatever_spelling() {
        for name in
            "cvv|CVV2|c_v_c|C.V.V. 2|Security Code|card-verification-value|cav2|cid|csc|card_cvv|cvv_code|\
             cvc_check|card_security_code|cardCode|verification_value|cvNumber|CV2|cvd|cvv1|cvc3|icvv|\
             cvvnumber|card_code|CVVcode|cardCvc|cvv_2|card_csc|CardVerificationNumber|card validation code|\
             dCVV2|cvn2|amexCav2"
                .split('|')
        {
            assert!(is_cvv_name(name), "{name}");
        }
    }

    #[test]
    fn other_names_are_not_taken_for_one() {
        for name in
            "recv_value|recvCount|recv-number|docs_count|topicsCreated|misc_score|publicVnet|customer_cid|\
             cidade|discscan|security|social_security|code|country_code|cv|cvs|gift_card_code|verification|\
             email_verified|validation_code|device|order|c|"
                .split('|')
        {
            assert!(!is_cvv_name(name), "{name}");
        }
    }

    #[test]
    fn a_verification_value_is_known_in_a_text_that_names_it() {
        for text in "cvv 123|cvc: 1234|CVV2=123|cvv123|paid; CVV2 is 987.|security code: 123|CVV code 123|\
             card verification value no. 1234|cvv 2: 123|csc 123|CVV2123|the card's CVC number was 123"
            .split('|')
        {
            assert!(tells_cvv(text), "{text}");
        }
        for text in
            "cvv matched|cvv ok, order 1234|CVV checked in 2024|cvv2|123|recv 123|code 123|security 123|\
             cvv 12|cvv 123456|cid 4711|gift card code 1234"
                .split('|')
        {
            assert!(!tells_cvv(text), "{text}");
        }
    }
}
