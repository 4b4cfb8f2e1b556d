//! Small texts: card numbers, dates, tokens, names of keys, digests, templates.

use vaultd::{
    auth::{approval_digest, is_approval_digest, is_tenant_name},
    card::{CardExpiry, Pan},
    hsm::KeyName,
    vault::{Format, LuhnRule, Reuse, Template, Templates, Token},
};

/// A text that is a PAN is one however it is grouped, and its mask hides all but ten digits.
pub fn pan(text: &str) {
    if let Ok(pan) = Pan::parse(text) {
        let again = Pan::parse(pan.as_str()).expect("digits alone are a PAN");
        assert_eq!(again.as_str(), pan.as_str());
        assert!(text.bytes().filter(u8::is_ascii_digit).eq(pan.as_str().bytes()));
        assert!((12..=19).contains(&pan.digits().len()));
        let mask = pan.masked().text();
        assert_eq!(mask.len(), pan.as_str().len());
        assert_eq!(mask.bytes().filter(u8::is_ascii_digit).count(), 10);
    }
    if let Ok(expiry) = CardExpiry::parse(text) {
        assert_eq!(expiry.as_str(), text);
    }
}

/// A text that is a token is written the same, but for the case of a UUID; the same holds of names of keys, and a digest
/// is what a digest looks like.
pub fn token(text: &str) {
    if let Ok(token) = Token::parse(text) {
        assert!(token.to_string().eq_ignore_ascii_case(text));
        assert_eq!(Token::parse(&token.to_string()), Ok(token));
    }
    if let Some(name) = KeyName::parse(text) {
        assert!(name.version > 0);
        assert_eq!(KeyName::parse(&name.to_string()), Some(name));
    }
    if is_tenant_name(text) {
        assert!((1..=64).contains(&text.len()) && text.is_ascii());
    }
    if is_approval_digest(text) {
        assert_eq!(text.len(), 43);
    }
    let (method, rest) = text.split_once(' ').unwrap_or((text, ""));
    assert!(is_approval_digest(&approval_digest(method, rest, text.as_bytes())));
}

/// A template is taken exactly if its name is plain and enough digits of a card are left to chance.
pub fn template(bytes: &[u8]) {
    let Some(([form, first, last, default], name)) = bytes.split_first_chunk::<4>() else { return };
    let Ok(name) = std::str::from_utf8(name) else { return };
    let luhn = match form % 3 {
        0 => LuhnRule::Invalid,
        1 => LuhnRule::Valid,
        _ => LuhnRule::Any,
    };
    let (keep_first, keep_last) = (usize::from(*first), usize::from(*last));
    let format = match form / 3 % 3 {
        0 => Format::Uuid,
        1 => Format::Opaque,
        _ => Format::Numeric { keep_first, keep_last, luhn },
    };
    let template = Template { format, require_luhn: true, reuse: Reuse::Tenant, expires_in: None };
    let default = if default % 2 == 0 { name } else { "other" };
    let taken = Templates::new([(name.to_owned(), template)].into(), default.to_owned()).is_ok();

    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let named = (1..=32).contains(&name.len()) && name.chars().all(plain);
    let most = if luhn == LuhnRule::Valid { 9 } else { 10 };
    let left = !matches!(format, Format::Numeric { .. }) || keep_first + keep_last <= most;
    assert_eq!(taken, named && left && default == name);
}
