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

use super::{app::App, batch, problem::Failure, reply::private_json, reveals::one_over};
use crate::{
    auth::Caller,
    guards::Card,
    vault::{Revealed, Token, VaultError},
};

/// Swap a token back for its PAN.
///
/// With `"reveal": "masked"` the scope `detokenize:masked` is enough, and no more of the PAN is read.
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
    app.notice_honey(&caller, [&token]);
    if is_masked {
        let masked = app.vault().masked(caller.tenant(), token).await?;
        return Ok(private_json(StatusCode::OK, &DetokenizeAnswer::Masked { masked_pan: masked.text() }));
    }
    app.require_approval_of(&caller, 1).await?;
    let admitted = app.admit(&caller, &[card(&app, &caller, &token)]).await?;
    let mut results = app.vault().detokenize(caller.tenant(), vec![Ok(token)]).await;
    let revealed = results.pop().ok_or_else(Failure::no_answer)??;
    app.guards().stats().revealed(1);
    Ok(app.with_quota(private_json(StatusCode::OK, &answer(&revealed)), admitted.quota))
}

/// Swap up to 1,000 tokens back for their PANs.
///
/// Results come in the order of the tokens. A token that fails does not fail the others; where nothing was done for want of the
/// HSM, the store or the audit log, the answer is that problem.
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
    let mut tokens: Vec<_> = tokens.iter().map(|text| Token::parse(text).map_err(Failure::from)).collect();
    let parsed: Vec<_> = tokens.iter().map(|token| token.as_ref().ok().copied()).collect();
    // Whatever becomes of it: who tried to take which cards.
    caller.trail().tokens(parsed.iter().flatten().map(Token::to_string));
    app.notice_honey(&caller, parsed.iter().flatten());
    let cards: Vec<_> = parsed.iter().flatten().map(|token| card(&app, &caller, token)).collect();
    app.require_approval_of(&caller, parsed.len()).await?;
    let admitted = app.admit(&caller, &cards).await?;
    let mut granted = admitted.granted.iter();
    for token in &mut tokens {
        if token.is_ok() && granted.next() == Some(&false) {
            *token = Err(one_over(admitted.quota));
        }
    }
    let asked = tokens.iter().flatten().map(|token| Ok(*token)).collect();
    let mut revealed = app.vault().detokenize(caller.tenant(), asked).await.into_iter();
    let mut results = Vec::with_capacity(tokens.len());
    caller.trail().forget_tokens();
    for (token, parsed) in tokens.into_iter().zip(parsed) {
        let opened = token.and_then(|token| {
            let opened = revealed.next().unwrap_or(Err(VaultError::UnknownToken));
            opened.map(|card| (token, card)).map_err(Failure::from)
        });
        match &opened {
            Ok((token, _)) => caller.trail().tokens([token.to_string()]),
            Err(failure) => caller.trail().failed(parsed.as_ref(), failure.code.as_str()),
        }
        results.push(opened.map(|(_, card)| answer(&card)));
    }
    app.guards().stats().revealed(results.iter().flatten().count());
    batch::answer(results).map(|response| app.with_quota(response, admitted.quota))
}

fn card(app: &App, caller: &Caller, token: &Token) -> Card {
    app.guards().card(caller.tenant(), token.key().as_bytes())
}

fn answer(revealed: &Revealed) -> DetokenizeAnswer {
    DetokenizeAnswer::Full {
        pan: Sensitive::from(revealed.pan.as_str()),
        expiry_date: revealed.expiry.as_ref().map(|date| Sensitive::from(date.as_str())),
    }
}
