//! `POST /v1/tokenize` and its batch.

use axum::{
    body::Body,
    extract::State,
    http::{Request, Response, StatusCode},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use vault_api::{BatchAnswer, Problem, Scope, TokenizeAnswer, TokenizeBatchRequest, TokenizeRequest};

use super::{app::App, batch, body, problem::Failure, reply::private_json};
use crate::{
    card::{CardExpiry, Pan},
    vault::{NewCard, Tokenized},
};

/// Swap a PAN for a token.
#[utoipa::path(
    post,
    path = "/v1/tokenize",
    tag = "tokens",
    security(("jwt" = ["tokenize"])),
    request_body = TokenizeRequest,
    responses(
        (status = 201, description = "A new token", body = TokenizeAnswer),
        (status = 200, description = "The token the PAN has already", body = TokenizeAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn tokenize(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::Tokenize]).await?;
    let card = new_card(app.json(request).await?)?;
    let done =
        app.vault().tokenize(caller.tenant(), vec![card]).await.pop().ok_or_else(Failure::no_answer)??;
    caller.trail().token(&done.token);
    let status = if done.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(private_json(status, &answer(done)))
}

/// Swap up to 1,000 PANs for tokens.
///
/// Results come in the order of the items. An item that fails does not fail the others; where nothing was done for want of the
/// HSM, the store or the audit log, the answer is that problem.
#[utoipa::path(
    post,
    path = "/v1/tokenize/batch",
    tag = "tokens",
    security(("jwt" = ["tokenize"])),
    request_body = TokenizeBatchRequest,
    responses(
        (status = 200, description = "One result for each item", body = BatchAnswer<TokenizeAnswer>),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn tokenize_batch(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    /// The items as they came: one that cannot be read must not fail the others.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Items<'a> {
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }

    let caller = app.authorize(&request, &[Scope::Tokenize]).await?;
    let text = app.body(request).await?;
    let Items { items } = body::parse(&text)?;
    batch::require_items(items.len(), app.limits().batch_items, "items")?;

    let mut cards = Vec::with_capacity(items.len());
    let mut places = Vec::with_capacity(items.len());
    for item in &items {
        places.push(body::parse(item.get().as_bytes()).and_then(new_card).map(|card| cards.push(card)));
    }
    let mut done = app.vault().tokenize(caller.tenant(), cards).await.into_iter();
    let results = places.into_iter().map(|place| {
        let result = match place {
            Ok(()) => done.next().ok_or_else(Failure::no_answer).and_then(|done| done.map_err(Failure::from)),
            Err(failure) => Err(failure),
        };
        match result {
            Ok(done) => {
                caller.trail().token(&done.token);
                Ok(answer(done))
            }
            Err(failure) => {
                caller.trail().failed(None, failure.code.as_str());
                Err(failure)
            }
        }
    });
    batch::answer(results.collect())
}

fn new_card(request: TokenizeRequest) -> Result<NewCard, Failure> {
    let expiry = request.expiry_date.as_ref().map(|date| CardExpiry::parse(date.expose())).transpose()?;
    Ok(NewCard {
        pan: Pan::parse(request.pan.expose())?,
        template: request.template,
        holder: request.holder,
        expiry,
        expires_in_s: request.expires_in,
        metadata: request.metadata.unwrap_or_default(),
    })
}

fn answer(done: Tokenized) -> TokenizeAnswer {
    TokenizeAnswer {
        token: done.token.to_string(),
        created: done.created,
        masked_pan: done.masked.text(),
        bin: done.masked.bin(),
        last4: done.masked.last4(),
        brand: done.masked.brand(),
        template: done.template,
        created_at: timestamp_ms(done.created_at_ms),
        expires_at: done.expires_at_s.map(timestamp_s),
    }
}

/// Seconds of Unix time as RFC 3339 writes them.
pub(super) fn timestamp_s(s: u64) -> Timestamp {
    timestamp_ms(s.saturating_mul(1_000))
}

/// Milliseconds of Unix time as RFC 3339 writes them; times that have no such form become the last one that has.
pub(super) fn timestamp_ms(ms: u64) -> Timestamp {
    i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}
