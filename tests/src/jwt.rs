//! JWTs of the development issuer: good ones, and bad ones of every kind.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// Makes JWTs with the issuer's private key.
pub struct Minter {
    key: EncodingKey,
    header: Value,
}

impl Minter {
    /// A minter with the private key `pem` and the `kid` of the JWT `example`.
    pub fn new(pem: &[u8], example: &str) -> Self {
        let header = URL_SAFE_NO_PAD.decode(example.split('.').next().unwrap()).unwrap();
        Self {
            key: EncodingKey::from_rsa_pem(pem).unwrap(),
            header: serde_json::from_slice(&header).unwrap(),
        }
    }

    /// A JWT for `scope` in the tenant `dev`.
    pub fn with_scope(&self, scope: &str) -> String {
        self.mint(&json!({ "scope": scope }))
    }

    /// A JWT whose claims are good but for `changes`; null removes a claim.
    pub fn mint(&self, changes: &Value) -> String {
        self.mint_with_header(&json!({}), changes)
    }

    /// A JWT whose header and claims are good but for the changes; null removes a member.
    pub fn mint_with_header(&self, header_changes: &Value, changes: &Value) -> String {
        let header = changed(self.header.clone(), header_changes);
        let signed = format!("{}.{}", part(&header), part(&claims(changes)));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.key, Algorithm::RS256).unwrap();
        format!("{signed}.{signature}")
    }

    /// A JWT with this header, good claims and the signature that `sign` makes.
    pub fn forge(&self, header_changes: &Value, sign: impl FnOnce(&[u8]) -> String) -> String {
        let header = changed(self.header.clone(), header_changes);
        let signed = format!("{}.{}", part(&header), part(&claims(&json!({}))));
        format!("{signed}.{}", sign(signed.as_bytes()))
    }
}

fn claims(changes: &Value) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let good = json!({
        "iss": "dev-issuer",
        "sub": "test",
        "aud": "vaultd",
        "iat": now,
        "exp": now + 600,
        "tenant": "dev",
        "jti": format!("{:016x}", fastrand::u64(..)),
        "scope": "tokenize detokenize tokens:read tokens:write tokens:delete",
    });
    changed(good, changes)
}

fn changed(mut object: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
    object
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}
