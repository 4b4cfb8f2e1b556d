//! Answers that are JSON.

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;
use zeroize::Zeroizing;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// Room for a usual answer. The copies that a longer one leaves behind as it grows are wiped by the allocator; room for the
/// longest would have to be wiped as a whole.
const USUAL_ANSWER_BYTES: usize = 512;

/// An answer that may hold card data: never to be kept by anybody, its buffer wiped when it has been sent.
pub(super) fn private_json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let mut buffer = Zeroizing::new(Vec::with_capacity(USUAL_ANSWER_BYTES));
    // These types have string keys only, and a vector takes every write: there is nothing to fail.
    let _ = serde_json::to_writer(&mut *buffer, value);
    let mut response = json(status, Bytes::from_owner(buffer));
    response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
    response
}

/// An answer that anybody may see and keep.
pub(super) fn public_json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    json(status, serde_json::to_vec(value).unwrap_or_default().into())
}

/// An answer that is JSON already.
pub(super) fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
