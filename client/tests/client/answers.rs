//! Answers of a vault, for the stub to give.

use serde_json::{Value, json};

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

pub(crate) fn card() -> Reply {
    Reply::Json(200, json!({"pan": PAN}))
}
