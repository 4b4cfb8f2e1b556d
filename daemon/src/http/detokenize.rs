//! `POST /v1/detokenize` and its batch.

use axum::{
    body::Body,
    extract::State,
    http::{Request, Response, StatusCode},
};
use vault_api::{
    BatchAnswer, DetokenizeAnswer, DetokenizeBatchRequest, DetokenizeRequest, Problem, Reveal, Scope,
    Sensitive,
};

use super::{app::App, batch, problem::Failure, reply::private_json};
use crate::vault::{Revealed, Token};

/// Swap a token back for its PAN.
///
/// With `"reveal": "masked"` the scope `detokenize:masked` is enough, and the PAN is not opened.
#[utoipa::path(
    post,
    path = "/v1/detokenize",
    tag = "tokens",
    security(("jwt" = ["detokenize"]), ("jwt" = ["detokenize:masked"])),
    request_body = DetokenizeRequest,
    responses(
        (status = 200, description = "The PAN, or the masked PAN", body = DetokenizeAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn detokenize(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::Detokenize, Scope::DetokenizeMasked]).await?;
    let body: DetokenizeRequest = app.json(request).await?;
    let is_masked = body.reveal == Some(Reveal::Masked);
    if is_masked {
        caller.trail().op("detokenize.masked");
    } else if !caller.may(Scope::Detokenize) {
        return Err(crate::auth::AuthError::Scope(Scope::Detokenize).into());
    }
    let token = Token::parse(&body.token)?;
    caller.trail().token(&token);
    if is_masked {
        let masked = app.vault().masked(caller.tenant(), token).await?;
        return Ok(private_json(StatusCode::OK, &DetokenizeAnswer::Masked { masked_pan: masked.text() }, 1));
    }
    let mut results = app.vault().detokenize(caller.tenant(), vec![Ok(token)]).await;
    let revealed = results.pop().ok_or_else(Failure::no_answer)??;
    Ok(private_json(StatusCode::OK, &answer(&revealed), 1))
}

/// Swap up to 1,000 tokens back for their PANs.
///
/// Results come in the order of the tokens. A token that fails does not fail the others.
#[utoipa::path(
    post,
    path = "/v1/detokenize/batch",
    tag = "tokens",
    security(("jwt" = ["detokenize"])),
    request_body = DetokenizeBatchRequest,
    responses(
        (status = 200, description = "One result for each token", body = BatchAnswer<DetokenizeAnswer>),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn detokenize_batch(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::Detokenize]).await?;
    let DetokenizeBatchRequest { tokens } = app.json(request).await?;
    batch::require_items(tokens.len(), app.limits().batch_items, "tokens")?;
    let tokens: Vec<_> = tokens.iter().map(|text| Token::parse(text)).collect();
    let asked: Vec<_> = tokens.iter().map(|token| token.as_ref().ok().copied()).collect();
    let results = app.vault().detokenize(caller.tenant(), tokens).await.into_iter();
    let results = results.zip(asked).map(|(result, token)| match result {
        Ok(card) => {
            caller.trail().tokens(token.map(|token| token.to_string()));
            Ok(answer(&card))
        }
        Err(error) => {
            let failure = Failure::from(error);
            caller.trail().failed(token.as_ref(), failure.code.as_str());
            Err(failure)
        }
    });
    batch::answer(results.collect())
}

fn answer(revealed: &Revealed) -> DetokenizeAnswer {
    DetokenizeAnswer::Full {
        pan: Sensitive::from(revealed.pan.as_str()),
        expiry_date: revealed.expiry.as_ref().map(|date| Sensitive::from(date.as_str())),
    }
}
