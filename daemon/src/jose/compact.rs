//! A JWT taken apart.
#![deny(clippy::indexing_slicing)]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::VerifyingKey;

/// The longest JWT that is looked at.
pub const MAX_JWT_BYTES: usize = 8_192;

const ALGORITHM: &str = "RS256";

/// Why a text is no JWT that the vault reads. No message repeats any part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JwsError(pub &'static str);

/// A compact JWS, nothing of it verified yet.
pub struct Compact<'a> {
    /// Which of the issuer's keys is said to have signed it.
    pub kid: String,
    payload: &'a str,
    signed: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
    jku: Option<IgnoredAny>,
    jwk: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
    x5c: Option<IgnoredAny>,
}

impl<'a> Compact<'a> {
    /// Takes `text` apart and refuses what needs no key to be refused. `is_type` says whether a `typ` is welcome.
    ///
    /// # Errors
    /// [`JwsError`].
    pub fn parse(text: &'a str, is_type: impl Fn(Option<&str>) -> bool) -> Result<Self, JwsError> {
        if text.len() > MAX_JWT_BYTES {
            return Err(JwsError("the JWT is longer than 8 KiB"));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(NOT_COMPACT)?;
        let (header, payload) = signed.split_once('.').ok_or(NOT_COMPACT)?;
        if payload.contains('.') {
            return Err(NOT_COMPACT);
        }
        let header: Header = json(header).ok_or(JwsError(
            "the JWT's header must be a JSON object with `alg` and `kid` as strings, each once",
        ))?;
        if header.alg != ALGORITHM {
            return Err(JwsError("the JWT's `alg` must be RS256"));
        }
        if !is_type(header.typ.as_deref()) {
            return Err(JwsError("the JWT's `typ` is not one that is used here"));
        }
        // Keys come from the configuration, and there is no extension this version understands.
        if [header.crit, header.jku, header.jwk, header.x5u, header.x5c].iter().any(Option::is_some) {
            return Err(JwsError("the JWT's header must not have crit, jku, jwk, x5u or x5c"));
        }
        let kid = header.kid.ok_or(JwsError("the JWT's header needs a `kid`"))?;
        Ok(Self { kid, payload, signed, signature })
    }

    /// The claims, if they are a JSON object and a `T`. Not to be believed before [`Compact::verify`].
    pub fn claims<T: DeserializeOwned>(&self) -> Option<T> {
        json(self.payload)
    }

    /// Whether `key` made the signature.
    ///
    /// # Errors
    /// [`JwsError`] if not.
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), JwsError> {
        if key.verify(self.signed.as_bytes(), self.signature) {
            Ok(())
        } else {
            Err(JwsError("the JWT's signature does not verify"))
        }
    }
}

const NOT_COMPACT: JwsError = JwsError("the JWT does not have three parts");

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    // Serde reads a struct from an array, too; a JOSE header and a claims set are objects.
    bytes.first().filter(|first| **first == b'{')?;
    // What nobody asks for is passed over unread: that it is UTF-8 (RFC 8259, 8.1) has to be seen before.
    serde_json::from_str(str::from_utf8(&bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jose::{KeySet, KeySetError};

    /// The claims of RFC 7515, A.1 to A.5, and RFC 7519, 3.1 and 6.1.
    const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb2\
        90Ijp0cnVlfQ";

    /// The modulus and the signature of RFC 7515, A.2.
    const A2_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEz\
        P1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5re\
        xMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWN\
        moudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const A2_SIGNATURE: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Q\
        c_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkS\
        jtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QO\
        YEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

    /// The key set of RFC 7517, A.1, but for the modulus, which is that of RFC 7515, A.2.
    const EC_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc","kid":"1"}"#;

    fn rsa_key(more: &str) -> String {
        format!(r#"{{"kty":"RSA","n":"{A2_N}","e":"AQAB","alg":"RS256","kid":"2011-04-29"{more}}}"#)
    }

    fn key_set(keys: &[&str]) -> Result<KeySet, KeySetError> {
        KeySet::parse(&format!(r#"{{"keys":[{}]}}"#, keys.join(",")))
    }

    fn reason(jwt: &str) -> &'static str {
        Compact::parse(jwt, |_| true).map(|_| ()).unwrap_err().0
    }

    #[test]
    fn the_rs256_example_of_rfc_7515_verifies_and_lacks_a_kid() {
        let keys = key_set(&[EC_KEY, &rsa_key("")]).unwrap();
        assert_eq!(keys.kids().collect::<Vec<_>>(), ["2011-04-29"], "RFC 7517, A.1: the other is no RSA key");
        let key = keys.key("2011-04-29").unwrap();
        let signed = format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}");
        assert!(key.verify(signed.as_bytes(), A2_SIGNATURE));
        assert!(!key.verify(signed.as_bytes(), &A2_SIGNATURE.replace("cC4", "cC5")));
        assert!(!key.verify(signed.to_lowercase().as_bytes(), A2_SIGNATURE));
        assert_eq!(reason(&format!("{signed}.{A2_SIGNATURE}")), "the JWT's header needs a `kid`");
    }

    #[test]
    fn the_examples_of_other_algorithms_are_refused_for_them() {
        for (header, signature) in [
            // RFC 7515, A.1 and RFC 7519, 3.1: HS256.
            ("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            // RFC 7515, A.3: ES256.
            (
                "eyJhbGciOiJFUzI1NiJ9",
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            // RFC 7515, A.5 and RFC 7519, 6.1: unsecured.
            ("eyJhbGciOiJub25lIn0", ""),
        ] {
            assert_eq!(reason(&format!("{header}.{CLAIMS}.{signature}")), "the JWT's `alg` must be RS256");
        }
        // RFC 7515, E: extensions that are not understood.
        let critical = URL_SAFE_NO_PAD.encode(
            r#"{"alg":"RS256","kid":"k","crit":["http://example.invalid/UNDEFINED"],"http://example.invalid/UNDEFINED":true}"#,
        );
        let refusal = "the JWT's header must not have crit, jku, jwk, x5u or x5c";
        assert_eq!(reason(&format!("{critical}.{CLAIMS}.{A2_SIGNATURE}")), refusal);
    }

    #[test]
    fn the_private_and_the_symmetric_keys_of_rfc_7517_are_refused() {
        let private = rsa_key(r#","d":"X4cTteJY_gn4FYPsXB8rdXix5vwsg1FLN5E3EaG6RJoVH-HLLKD9""#);
        // RFC 7517, A.3.
        let symmetric = r#"{"kty":"oct","alg":"A128KW","k":"GawgguFyGrWKav7AX4VKUg"}"#;
        for key in [private.as_str(), symmetric] {
            assert_eq!(key_set(&[EC_KEY, key]).err(), Some(KeySetError::Private));
        }
    }

    #[test]
    fn what_is_no_text_is_no_json() {
        #[derive(serde::Deserialize)]
        struct Nothing {}
        let read = |bytes: &[u8]| json::<serde_json::Value>(&URL_SAFE_NO_PAD.encode(bytes)).is_some();
        let pass_over = |bytes: &[u8]| json::<Nothing>(&URL_SAFE_NO_PAD.encode(bytes)).is_some();
        assert!(read(b"{\"a\":\"b\"}") && pass_over(b"{\"a\":\"b\"}"));
        assert!(!read(b"{\"a\":\"\x9e\"}") && !pass_over(b"{\"a\":\"\x9e\"}"));
    }
}
