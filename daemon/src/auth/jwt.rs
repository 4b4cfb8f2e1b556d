//! The JWT as a bearer token: its claims and their rules (RFC 7519, RFC 8725).
#![deny(clippy::indexing_slicing)]

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Number;

use super::AuthError;
use crate::jose::{Compact, VerifyingKey};

/// RFC 7519, 5.1 and RFC 9068, 2.1 and 4.
const TYPES: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];

/// A JWT taken apart, nothing of it verified yet.
pub(super) struct Jwt<'a> {
    pub(super) claims: Claims,
    compact: Compact<'a>,
}

/// The claims the vault reads; others are passed over. A claim that comes twice is refused.
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Subject.
    pub sub: String,
    /// Audience: one or several.
    pub aud: Audience,
    /// End, in seconds of Unix time.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: u64,
    /// When it was issued, in seconds of Unix time.
    #[serde(deserialize_with = "numeric_date")]
    pub iat: u64,
    /// Not to be used before, in seconds of Unix time.
    #[serde(default, deserialize_with = "optional_numeric_date")]
    pub nbf: Option<u64>,
    /// The JWT's own id.
    pub jti: Option<String>,
    /// Space-separated scopes (RFC 8693, 4.2).
    #[serde(default)]
    pub scope: String,
    /// The tenant it speaks for.
    pub tenant: Option<String>,
    /// What it is bound to.
    pub cnf: Option<Confirmation>,
    /// The digest of the request of somebody else that it approves.
    pub approves: Option<String>,
}

/// The `aud` claim (RFC 7519, 4.1.3).
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// A single string.
    One(String),
    /// An array of strings.
    Many(Vec<String>),
}

/// The `cnf` claim (RFC 7800). A binding the vault cannot check is refused, not passed over.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirmation {
    /// User id of the only peer that may present the JWT.
    pub uid: u32,
}

/// What the claims are held against.
pub(super) struct Expected<'a> {
    pub(super) audience: &'a str,
    pub(super) max_lifetime_s: u64,
    pub(super) older_until_s: u64,
    pub(super) leeway_s: u64,
    pub(super) now_s: u64,
}

impl<'a> Jwt<'a> {
    /// Takes a compact JWS (RFC 7515, 7.1) apart and refuses what needs no key to be refused.
    pub(super) fn parse(text: &'a str) -> Result<Self, AuthError> {
        let known = |typ: &str| TYPES.iter().any(|known| typ.eq_ignore_ascii_case(known));
        let compact = Compact::parse(text, |typ| typ.is_none_or(known))?;
        let claims = compact.claims().ok_or(AuthError::Invalid(
            "the JWT's claims must be JSON with iss, sub, aud, exp and iat of the right type, each once, and only \
             `uid` in cnf",
        ))?;
        Ok(Self { claims, compact })
    }

    /// Which of the issuer's keys is said to have signed it.
    pub(super) fn kid(&self) -> &str {
        &self.compact.kid
    }

    /// Whether `key` made the signature.
    pub(super) fn verify(&self, key: &VerifyingKey) -> Result<(), AuthError> {
        Ok(self.compact.verify(key)?)
    }
}

impl Claims {
    /// Holds verified claims against what is expected of them.
    pub(super) fn check(&self, expected: &Expected<'_>) -> Result<(), AuthError> {
        let Expected { audience, max_lifetime_s, older_until_s, leeway_s, now_s } = *expected;
        let audience_fits = match &self.aud {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
        };
        if !audience_fits {
            return Err(AuthError::Invalid("the JWT's `aud` does not name this vault"));
        }
        if self.sub.is_empty() {
            return Err(AuthError::Invalid("the JWT's `sub` is empty"));
        }
        if now_s >= self.exp.saturating_add(leeway_s) {
            return Err(AuthError::Expired);
        }
        let latest_s = now_s.saturating_add(leeway_s);
        if self.iat > latest_s {
            return Err(AuthError::Invalid("the JWT's `iat` is in the future"));
        }
        if self.nbf.is_some_and(|nbf| nbf > latest_s) {
            return Err(AuthError::Invalid("the JWT's `nbf` is in the future"));
        }
        match self.exp.checked_sub(self.iat) {
            None => Err(AuthError::Invalid("the JWT's `exp` is before its `iat`")),
            Some(lifetime) if lifetime > max_lifetime_s && self.exp > older_until_s => {
                Err(AuthError::Invalid("the JWT lives longer than its issuer's maximum"))
            }
            Some(_) => Ok(()),
        }
    }
}

/// A `NumericDate` may have a fraction (RFC 7519, 2); it is cut off.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    optional_numeric_date(deserializer)?.ok_or_else(|| D::Error::custom("a date is null"))
}

fn optional_numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<Number>::deserialize(deserializer)? else { return Ok(None) };
    let text = number.to_string();
    // What is written with an exponent is below a second or past any date.
    if text.contains('e') {
        return Err(D::Error::custom("a date is out of range"));
    }
    let whole = text.split_once('.').map_or(text.as_str(), |(whole, _)| whole);
    let whole = whole.parse().ok();
    whole.map(Some).ok_or_else(|| D::Error::custom("a date is out of range"))
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn text(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    fn claims(change: &str) -> Claims {
        let mut claims: serde_json::Value = serde_json::json!({
            "iss": "i", "sub": "s", "aud": "vaultd", "iat": NOW - 10, "exp": NOW + 50
        });
        let change: serde_json::Value = serde_json::from_str(change).unwrap();
        for (name, value) in change.as_object().unwrap() {
            claims.as_object_mut().unwrap().insert(name.clone(), value.clone());
        }
        serde_json::from_value(claims).unwrap()
    }

    fn check(change: &str) -> Result<(), AuthError> {
        let older_until_s = NOW + 50;
        let expected =
            Expected { audience: "vaultd", max_lifetime_s: 60, older_until_s, leeway_s: 30, now_s: NOW };
        claims(change).check(&expected)
    }

    #[test]
    fn a_plain_jwt_parses() {
        let good = r#"{"iss":"i","sub":"s","aud":["a","vaultd"],"exp":2,"iat":1,"other":{}}"#;
        assert!(Jwt::parse(&text(r#"{"alg":"RS256","kid":"k","typ":"JWT"}"#, good)).is_ok());
    }

    #[test]
    fn headers_that_point_elsewhere_or_weaken_are_refused() {
        let claims = r#"{"iss":"i","sub":"s","aud":"a","exp":2,"iat":1}"#;
        for header in [
            r#"{"alg":"none","kid":"k"}"#,
            r#"{"alg":"HS256","kid":"k"}"#,
            r#"{"alg":"rs256","kid":"k"}"#,
            r#"{"alg":"RS512","kid":"k"}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"RS256","alg":"RS256","kid":"k"}"#,
            r#"{"alg":"RS256","kid":"k","crit":["exp"]}"#,
            r#"{"alg":"RS256","kid":"k","jku":"https://example.org"}"#,
            r#"{"alg":"RS256","kid":"k","jwk":{}}"#,
            r#"{"alg":"RS256","kid":"k","x5u":"https://example.org"}"#,
            r#"{"alg":"RS256","kid":"k","x5c":[]}"#,
            r#"{"alg":"RS256","kid":"k","typ":"JWE"}"#,
            r#"{"alg":"RS256","kid":"k","typ":"envelope+jwt"}"#,
            r#"["RS256","k"]"#,
            "",
        ] {
            assert!(matches!(Jwt::parse(&text(header, claims)), Err(AuthError::Invalid(_))), "{header}");
        }
    }

    #[test]
    fn claims_that_are_missing_doubled_or_mistyped_are_refused() {
        for claims in [
            r#"{"sub":"s","aud":"a","exp":2,"iat":1}"#,
            r#"{"iss":"i","aud":"a","exp":2,"iat":1}"#,
            r#"{"iss":"i","sub":"s","exp":2,"iat":1}"#,
            r#"{"iss":"i","sub":"s","aud":"a","iat":1}"#,
            r#"{"iss":"i","sub":"s","aud":"a","exp":2}"#,
            r#"{"iss":"i","sub":"s","aud":"a","exp":2,"exp":3,"iat":1}"#,
            r#"{"iss":"i","sub":"s","aud":"a","exp":"2","iat":1}"#,
            r#"{"iss":"i","sub":"s","aud":"a","exp":-2,"iat":1}"#,
            r#"{"iss":"i","sub":"s","aud":"a","exp":2,"iat":1,"cnf":{"jkt":"x"}}"#,
            r#"{"iss":"i","sub":"s","aud":"a","exp":2,"iat":1,"cnf":{"uid":1,"jkt":"x"}}"#,
        ] {
            assert!(Jwt::parse(&text(r#"{"alg":"RS256","kid":"k"}"#, claims)).is_err(), "{claims}");
        }
    }

    #[test]
    fn four_parts_two_parts_and_padding_are_refused() {
        for text in ["", "a", "a.b", "a.b.c.d", "e30=.e30=.c2ln"] {
            assert!(Jwt::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn time_is_exact_to_the_second_with_leeway() {
        assert_eq!(check("{}"), Ok(()));
        assert_eq!(check(&format!(r#"{{"exp":{},"iat":{}}}"#, NOW - 29, NOW - 60)), Ok(()));
        assert_eq!(check(&format!(r#"{{"exp":{},"iat":0}}"#, NOW - 30)), Err(AuthError::Expired));
        assert_eq!(check(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW + 30, NOW + 31)), Ok(()));
        assert!(check(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW + 31, NOW + 32)).is_err());
        assert_eq!(check(&format!(r#"{{"nbf":{}}}"#, NOW + 30)), Ok(()));
        assert!(check(&format!(r#"{{"nbf":{}}}"#, NOW + 31)).is_err());
        assert_eq!(check(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW, NOW + 60)), Ok(()));
        assert!(check(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW, NOW + 61)).is_err());
        assert!(check(&format!(r#"{{"exp":{}}}"#, u64::MAX)).is_err());
    }

    #[test]
    fn what_was_given_out_before_lives_on() {
        assert_eq!(check(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW - 600, NOW + 50)), Ok(()));
        assert!(check(&format!(r#"{{"iat":{},"exp":{}}}"#, NOW - 600, NOW + 51)).is_err());
    }

    #[test]
    fn a_date_may_have_a_fraction_but_no_other_form() {
        assert_eq!(claims(r#"{"exp":1800000000.9}"#).exp, 1_800_000_000);
        let beyond = ["18446744073709551616", "1.5e20", "1.5e-7"];
        for exp in ["-1.0", "1e300", "true", "null", "\"1\""].into_iter().chain(beyond) {
            let text = format!(r#"{{"iss":"i","sub":"s","aud":"a","iat":1,"exp":{exp}}}"#);
            assert!(serde_json::from_str::<Claims>(&text).is_err(), "{exp}");
        }
    }

    #[test]
    fn the_audience_must_name_the_vault() {
        assert_eq!(check(r#"{"aud":["other","vaultd"]}"#), Ok(()));
        assert!(check(r#"{"aud":"other"}"#).is_err());
        assert!(check(r#"{"aud":[]}"#).is_err());
        assert!(check(r#"{"sub":""}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(text in "[A-Za-z0-9_.-]{0,120}") {
            let _ = Jwt::parse(&text);
        }
    }
}
