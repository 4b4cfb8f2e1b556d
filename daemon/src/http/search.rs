//! `POST /v1/tokens/search` and `/v1/tokens/compare`.

use axum::{
    body::Body,
    extract::State,
    http::{Request, Response, StatusCode},
};
use vault_api::{
    Code, CompareAnswer, CompareRequest, MAX_SEARCH_LIMIT, Problem, Scope, SearchAnswer, SearchRequest,
    Sensitive, TokenRecord,
};

use super::{app::App, problem::Failure, reply::private_json, tokens::answer};
use crate::{
    card::Pan,
    guards::Admitted,
    vault::{Search, Token},
};

const DEFAULT_LIMIT: usize = 20;

/// Find records by holder, by PAN, or by both.
#[utoipa::path(
    post,
    path = "/v1/tokens/search",
    tag = "tokens",
    security(("jwt" = ["tokens:search"])),
    request_body = SearchRequest,
    responses(
        (status = 200, description = "A page of records", body = SearchAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn search(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::TokensSearch]).await?;
    let SearchRequest { holder, pan, limit, cursor } = app.json(request).await?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_SEARCH_LIMIT).contains(&limit) {
        let detail = format!("limit must be 1 to {MAX_SEARCH_LIMIT}");
        return Err(Failure::new(Code::InvalidRequest, detail));
    }
    let pan = pan.map(|pan| Pan::parse(pan.expose())).transpose()?;
    // Whoever tries one PAN after the other finds out which is behind a token.
    let guess = pan.as_ref().map(|_| app.guards().guess());
    let admitted = match guess {
        Some(guess) => app.admit(&caller, &[guess]).await?,
        None => Admitted::default(),
    };
    let search = Search {
        holder: holder.as_ref().map(Sensitive::expose),
        pan: pan.as_ref(),
        cursor: cursor.as_deref(),
    };
    let page = app.vault().search(caller.tenant(), search, limit).await?;
    let tokens: Vec<TokenRecord> = page.records.into_iter().map(answer).collect();
    caller.trail().tokens(tokens.iter().map(|record| record.token.clone()));
    let answer = private_json(StatusCode::OK, &SearchAnswer { tokens, cursor: page.cursor });
    Ok(app.with_quota(answer, admitted.quota))
}

/// Say whether a token stands for a PAN.
#[utoipa::path(
    post,
    path = "/v1/tokens/compare",
    tag = "tokens",
    security(("jwt" = ["tokens:compare"])),
    request_body = CompareRequest,
    responses(
        (status = 200, description = "Whether they belong together", body = CompareAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn compare(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::TokensCompare]).await?;
    let CompareRequest { token, pan } = app.json(request).await?;
    let (token, pan) = (Token::parse(&token)?, Pan::parse(pan.expose())?);
    caller.trail().token(&token);
    app.notice_honey(&caller, [&token]);
    let admitted = app.admit(&caller, &[app.guards().guess()]).await?;
    let equal = app.vault().compare(caller.tenant(), token, &pan).await?;
    Ok(app.with_quota(private_json(StatusCode::OK, &CompareAnswer { equal }), admitted.quota))
}
