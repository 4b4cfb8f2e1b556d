//! Answers of a vault, for the stub to give.

use serde_json::{Value, json};
use vault_client::{CardData, SealEnvelopeRequest};

use crate::stub::Reply;

/// A test card of Visa; belongs to nobody.
pub(crate) const PAN: &str = "4111111111111111";

pub(crate) fn tokenized() -> Value {
    json!({
        "token": "tok_1", "created": true, "masked_pan": "411111******1111", "bin": "411111",
        "last4": "1111", "brand": "visa", "template": "default",
        "created_at": "2026-01-02T03:04:05.678Z", "expires_at": null,
    })
}

pub(crate) fn record() -> Value {
    let mut record = tokenized();
    record.as_object_mut().unwrap().remove("created");
    record["key_version"] = json!(1);
    record["ciphertext_id"] = json!("c");
    record["fingerprint"] = json!("f");
    record["metadata"] = json!({"order": "A-1"});
    record
}

pub(crate) fn envelope() -> SealEnvelopeRequest {
    let meta_data =
        CardData { card_number: PAN.into(), expiry_date: "12/30".into(), cvv: Some("123".into()) };
    SealEnvelopeRequest { meta_data, audience: None, expires_in: None, single_use: Some(true) }
}

pub(crate) fn sealed() -> Value {
    json!({"jwt": "e.e.e", "jti": "j-1", "expires_at": "2026-01-02T03:34:05Z"})
}

pub(crate) fn opened() -> Value {
    let claims = json!({
        "iss": "payment-service", "aud": "payment-gateway", "iat": 100, "exp": 1_900, "jti": "j-1",
        "tenant": "dev", "single_use": true,
    });
    json!({"meta_data": {"card_number": PAN, "expiry_date": "12/30"}, "claims": claims})
}

/// The answer to a login: the JWT `token` for `expires_in` seconds.
pub(crate) fn logged_in(token: &str, expires_in: u64) -> Value {
    json!({
        "access_token": token, "token_type": "Bearer", "expires_in": expires_in,
        "scope": "tokenize", "tenant": "dev",
    })
}

pub(crate) fn card() -> Reply {
    Reply::Json(200, json!({"pan": PAN}))
}
