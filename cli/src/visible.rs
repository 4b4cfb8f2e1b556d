//! No card number and no JWT on the command line: every user of the machine can read it there, and the shell keeps it.

use std::ffi::OsString;

/// Digits of a card number (ISO/IEC 7812-1).
const PAN_DIGITS: std::ops::RangeInclusive<usize> = 12..=19;

/// Refuses a command line with a number that has a card number's length and check digit.
///
/// # Errors
/// What is wrong with it, for whoever wrote it.
pub fn refuse_card_numbers(words: &[OsString]) -> Result<(), String> {
    let is_card = |digits: &[u8]| PAN_DIGITS.contains(&digits.len()) && passes_luhn(digits);
    refuse(words, is_card, "an argument looks like a card number, and is not repeated here")
}

/// Refuses a command line with a number as long as a card number's.
///
/// # Errors
/// What is wrong with it, for whoever wrote it.
pub fn refuse_long_numbers(words: &[OsString]) -> Result<(), String> {
    let is_long = |digits: &[u8]| digits.len() >= *PAN_DIGITS.start();
    refuse(
        words,
        is_long,
        "the command line is not understood, and not repeated: it has a number as long as a card's",
    )
}

/// Refuses a command line that asks to seal, in which a number may be a card verification value.
///
/// # Errors
/// What is wrong with it, for whoever wrote it.
pub fn refuse_verification_values(words: &[OsString]) -> Result<(), String> {
    let is_value =
        |text: &str| (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let has_value =
        |word: &OsString| word.to_string_lossy().split(|c: char| !c.is_ascii_alphanumeric()).any(is_value);
    if words.iter().any(|word| word == "seal") && words.iter().skip(1).any(has_value) {
        return Err(
            "the command line is not understood, and not repeated: it has a number as long as a card \
                    verification value; see `vaultctl help seal`, which asks for it"
                .to_owned(),
        );
    }
    Ok(())
}

/// Refuses a command line with a JWT or an envelope.
///
/// # Errors
/// What is wrong with it, for whoever wrote it.
pub fn refuse_jwts(words: &[OsString]) -> Result<(), String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // RFC 7515: three parts in base64url, and the first is a JSON object.
    let is_jwt = |text: &str| text.starts_with("eyJ") && text.split('.').count() >= 3;
    if words.iter().skip(1).any(|word| word.to_string_lossy().split(|c| !is_part(c)).any(is_jwt)) {
        return Err("an argument looks like a JWT, which is neither a token nor a file, and is not repeated here; \
                    other users can see arguments, and the shell keeps them: remove it from there. Give an envelope \
                    to `vaultctl open` on standard input or in a file, and a JWT to log in with in a file or in \
                    VAULT_TOKEN"
            .to_owned());
    }
    Ok(())
}

fn refuse(words: &[OsString], is_refused: impl Fn(&[u8]) -> bool, what: &str) -> Result<(), String> {
    let candidates = words.iter().skip(1).flat_map(|word| {
        let text = word.to_string_lossy().into_owned();
        let value = text.split_once('=').map(|(_, value)| value.to_owned());
        [Some(text), value]
    });
    let holds = |text: String| {
        digits(&text).into_iter().chain(inner_numbers(&text)).any(|digits| is_refused(&digits))
    };
    if candidates.flatten().any(holds) {
        return Err(format!(
            "{what}; other users can see arguments, and the shell keeps them: remove it from there. Give a card number, \
             or a token that looks like one, on standard input or in a file; see `vaultctl help tokenize`"
        ));
    }
    Ok(())
}

/// The digits of a number in groups, whatever stands around it; `None` if other characters stand between them, or it is in a
/// name and begins with a time.
fn digits(text: &str) -> Option<Vec<u8>> {
    let number = text.trim_matches(|c: char| !c.is_ascii_digit());
    let fits = number.chars().all(|c| c.is_ascii_digit() || is_gap(c));
    let groups: Vec<_> = number.split(is_gap).filter(|group| !group.is_empty()).collect();
    let is_time = text.contains(char::is_alphabetic) && groups_of_time(&groups) > 0;
    (fits && !is_time).then(|| number.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect())
}

/// The digits of every number that stands for itself inside `text`, such as one in a row of CSV, and of its groups from any to
/// any. A UUID has none: one token in some thousand ends in the digits of a card. Nor has a time in the name of a file: one
/// minute in ten passes for a card.
fn inner_numbers(text: &str) -> Vec<Vec<u8>> {
    let mut numbers = Vec::new();
    for piece in text.split(|c: char| !c.is_ascii_alphanumeric() && !is_gap(c)) {
        let words: Vec<_> = piece.split(is_gap).filter(|word| !word.is_empty()).collect();
        let is_name = !words.iter().all(|word| is_number(word));
        let (mut rest, mut groups) = (words.as_slice(), Vec::new());
        while let Some((word, behind)) = rest.split_first() {
            let uuid = rest.split_at_checked(UUID_LENGTHS.len()).filter(|(words, _)| is_uuid(words));
            let of_time = if is_name && groups.is_empty() { groups_of_time(rest) } else { 0 };
            rest = uuid.map_or(rest.get(of_time.max(1)..).unwrap_or(behind), |(_, behind)| behind);
            if of_time > 0 {
                continue;
            }
            if uuid.is_none() && is_number(word) {
                groups.push(*word);
            } else {
                join(&std::mem::take(&mut groups), &mut numbers);
            }
        }
        join(&groups, &mut numbers);
    }
    numbers
}

/// Adds the numbers that neighbouring `groups` make to `numbers`, as far as one can be a card's.
fn join(groups: &[&str], numbers: &mut Vec<Vec<u8>>) {
    for first in 0..groups.len() {
        let mut digits = Vec::new();
        for group in groups.iter().skip(first) {
            digits.extend(group.bytes().map(|digit| digit - b'0'));
            numbers.push(digits.clone());
            if digits.len() > *PAN_DIGITS.end() {
                break;
            }
        }
    }
}

/// The parts of a UUID, in digits (RFC 9562, 4).
const UUID_LENGTHS: [usize; 5] = [8, 4, 4, 4, 12];

fn is_uuid(words: &[&str]) -> bool {
    let is_hex = |word: &&str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    words.iter().map(|word| word.len()).eq(UUID_LENGTHS) && words.iter().all(is_hex)
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// How many of `groups`, from the first, are a date or a date and a time of this century; no card's number begins with 20.
fn groups_of_time(groups: &[&str]) -> usize {
    let mut digits = String::new();
    let mut of_time = 0;
    for (group, count) in groups.iter().zip(1..) {
        digits.push_str(group);
        if digits.len() > TIME.len() {
            break;
        }
        if is_time(&digits) {
            of_time = count;
        }
    }
    of_time
}

/// The basic format of ISO 8601, without what parts date and time.
const TIME: &str = "20YYMMDDhhmmss";

fn is_time(digits: &str) -> bool {
    let in_range = |at: usize, from: u8, to: u8| {
        digits.get(at..at + 2).is_none_or(|pair| pair.parse().is_ok_and(|pair| (from..=to).contains(&pair)))
    };
    let has_date = digits.len() >= 8 && digits.len().is_multiple_of(2) && digits.starts_with("20");
    has_date
        && in_range(4, 1, 12)
        && in_range(6, 1, 31)
        && in_range(8, 0, 23)
        && in_range(10, 0, 59)
        && in_range(12, 0, 60)
}

fn is_gap(c: char) -> bool {
    c.is_whitespace() || matches!(c, '-' | '.' | '_' | '/')
}

/// ISO/IEC 7812-1, annex B.
fn passes_luhn(digits: &[u8]) -> bool {
    let weighed = digits.iter().rev().enumerate().map(|(place, digit)| match (place % 2, digit * 2) {
        (0, _) => u32::from(*digit),
        (_, double) => u32::from(if double > 9 { double - 9 } else { double }),
    });
    weighed.sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        ["vaultctl", "tokenize", text].map(OsString::from).to_vec()
    }

    #[test]
    fn a_card_number_is_refused_however_it_is_written() {
        for text in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "--pan=4111111111111111",
            "-p4111111111111111",
            "--metadata=pan=378282246310005",
            "\"6011 0009 9013 9424\"",
            "/tmp/4111111111111111.csv",
            "/data/2026/11/23/4111-1111-1111-1111.csv",
            "20261123-0808-4111111111111111",
            "4111 2026 1123 0808 3",
            "202611230808",
            "--pan=2026-1123-0808",
            "holder,202611230808,12/30",
            "4111111111111111,12/30",
            "4111 1111 1111 1111 12/30",
            "12/30 4111 1111 1111 1111",
            "4111111111111111=30121010000000000000",
            "--metadata=order1=4111111111111111",
            "Ada Lovelace 4111111111111111 x",
        ] {
            let complaint = refuse_card_numbers(&words(text)).unwrap_err();
            assert!(!complaint.contains("1111"), "{complaint}");
        }
    }

    #[test]
    fn tokens_and_times_are_not_card_numbers() {
        for text in [
            "0198c0de-7a31-7c55-9d5e-0a1b2c3d4e5f",
            "12345678-1234-7123-8123-123456789012",
            "4111118273641111",
            "0198c0de-7a31-7c55-9d5e-378282246313",
            "--token=0198c0de-7a31-7c55-9d5e-378282246313",
            "/tmp/0198c0de-7a31-7c55-9d5e-378282246313.jwt",
            "tok_3yZe7d4111111111111111x",
            "2026-01-02T03:04:05.678901Z",
            "cards-20261123-0808.csv",
            "/data/2026/11/23/0808.csv",
            "cards_20261123080826.csv",
            "30d",
        ] {
            assert!(refuse_card_numbers(&words(text)).is_ok(), "{text}");
        }
        assert!(refuse_long_numbers(&words("4111111111111112")).is_err());
        assert!(refuse_long_numbers(&words("12345678901")).is_ok());
        assert!(refuse_long_numbers(&words("--pan=4111111111111112x,41111111111111124111")).is_err());
    }

    #[test]
    fn a_jwt_is_refused_wherever_it_stands() {
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJhIn0.c2ln_bmF0-dXJl";
        for text in [
            jwt.to_owned(),
            format!("--token-file={jwt}"),
            format!("--metadata=session={jwt}"),
            format!("\"Bearer {jwt}\""),
            format!("./{jwt}"),
        ] {
            let complaint = refuse_jwts(&words(&text)).unwrap_err();
            assert!(!complaint.contains("eyJ") && !complaint.contains("c2ln"), "{complaint}");
        }
        for text in ["eyJ", "eyJ.jwt", "jwt.eyJ.txt", "0198c0de-7a31-7c55-9d5e-0a1b2c3d4e5f", "/run/a.b.c"] {
            assert!(refuse_jwts(&words(text)).is_ok(), "{text}");
        }
    }
}
