//! The site: which page answers which request.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use vault_client::{Code, SearchRequest, TokenizeRequest, VaultClient};

use crate::{
    csrf::{Guard, Session},
    headers,
    pages::{Find, Found, Revealed, Save, Saved, brand_name, page},
    receipts::{Receipt, Receipts},
    visit::{in_session, own_form, see_other, trouble},
    wrong::{check_card, check_holder, explain},
};

/// How many cards a page of a search shows.
const CARDS_PER_PAGE: usize = 20;

/// What the handlers share.
pub(crate) struct Site {
    vault: VaultClient,
    guard: Guard,
    receipts: Receipts,
}

impl Site {
    pub(crate) fn new(vault: VaultClient, guard: Guard) -> Arc<Self> {
        Arc::new(Self { vault, guard, receipts: Receipts::default() })
    }
}

/// Every page, protected.
pub(crate) fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(save_form))
        .route("/cards", post(save))
        .route("/receipt", get(receipt))
        .route("/find", get(find_form).post(find))
        .route("/reveal", post(reveal))
        .route("/style.css", get(style))
        .fallback(async || trouble(StatusCode::NOT_FOUND, "Page not found", "There is no such page."))
        .layer(middleware::from_fn_with_state(Arc::clone(&site), known_host))
        .layer(middleware::map_response(headers::protect))
        .with_state(site)
}

async fn known_host(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    if site.guard.knows_host(request.headers()) {
        next.run(request).await
    } else {
        trouble(
            StatusCode::MISDIRECTED_REQUEST,
            "Wrong address",
            "Open this site as http://127.0.0.1 and its port.",
        )
    }
}

async fn style() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../assets/style.css")).into_response()
}

async fn save_form(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    in_session(&headers, |session| {
        page(StatusCode::OK, &Save { csrf: &site.guard.token(session), ..Save::default() })
    })
}

async fn save(State(site): State<Arc<Site>>, headers: HeaderMap, body: Body) -> Response {
    let (session, form) = match own_form(&site.guard, &headers, body).await {
        Ok(own) => own,
        Err(refusal) => return refusal,
    };
    let mut errors = check_card(&form);
    let mut status = StatusCode::UNPROCESSABLE_ENTITY;
    if !errors.any() {
        let request = TokenizeRequest {
            holder: form.value("holder"),
            expiry_date: form.value("expiry_date"),
            ..TokenizeRequest::new(form.text("pan"))
        };
        match site.vault.tokenize(&request).await {
            Ok(made) => {
                let brand = brand_name(made.brand);
                let (token, masked_pan, created) = (made.token, made.masked_pan, made.created);
                site.receipts.put(&session, Receipt { token, masked_pan, brand, created });
                return see_other("/receipt");
            }
            Err(error) if error.code() == Some(Code::InvalidPan) => {
                errors.pan = "This is not a card number: compare each digit with the card.";
            }
            Err(error) => (status, errors.form) = explain(&error),
        }
    }
    let csrf = site.guard.token(&session);
    let (holder, expiry_date) = (form.text("holder"), form.text("expiry_date"));
    page(status, &Save { csrf: &csrf, holder, expiry_date, errors })
}

async fn receipt(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    match Session::of(&headers).and_then(|session| site.receipts.of(&session)) {
        Some(receipt) => page(StatusCode::OK, &Saved { receipt }),
        None => see_other("/"),
    }
}

async fn find_form(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    in_session(&headers, |session| {
        page(StatusCode::OK, &Find { csrf: &site.guard.token(session), ..Find::default() })
    })
}

async fn find(State(site): State<Arc<Site>>, headers: HeaderMap, body: Body) -> Response {
    let (session, form) = match own_form(&site.guard, &headers, body).await {
        Ok(own) => own,
        Err(refusal) => return refusal,
    };
    let csrf = site.guard.token(&session);
    let holder = form.text("holder");
    let mut answer = Find { csrf: &csrf, holder, ..Find::default() };
    let wrong = check_holder(holder);
    if !wrong.is_empty() {
        answer.error = wrong;
        return page(StatusCode::UNPROCESSABLE_ENTITY, &answer);
    }
    let request = SearchRequest {
        holder: form.value("holder"),
        limit: Some(CARDS_PER_PAGE),
        cursor: Some(form.text("cursor")).filter(|cursor| !cursor.is_empty()).map(str::to_owned),
        ..SearchRequest::default()
    };
    let mut status = StatusCode::OK;
    match site.vault.search(&request).await {
        Ok(found) => {
            answer.found = Some(Found { cards: found.tokens, cursor: found.cursor.unwrap_or_default() });
        }
        Err(error) => (status, answer.trouble) = explain(&error),
    }
    page(status, &answer)
}

async fn reveal(State(site): State<Arc<Site>>, headers: HeaderMap, body: Body) -> Response {
    let (_, form) = match own_form(&site.guard, &headers, body).await {
        Ok(own) => own,
        Err(refusal) => return refusal,
    };
    let token = form.text("token");
    match site.vault.detokenize(token).await {
        Ok(card) => page(StatusCode::OK, &Revealed { token, card }),
        Err(error) => {
            let (status, advice) = explain(&error);
            trouble(status, "The card number cannot be shown", &advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, SET_COOKIE},
    };
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    const OWN: &str = "http://127.0.0.1:8480";

    /// A site whose vault is down.
    fn site() -> Arc<Site> {
        let vault = VaultClient::builder("/nowhere/v.sock")
            .token("aaa.bbb.ccc".to_owned().into())
            .timeout(std::time::Duration::from_millis(50));
        Site::new(vault.build().unwrap(), Guard::new(8480).unwrap())
    }

    fn request(method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder().method(method).uri(path).header("host", "127.0.0.1:8480")
    }

    async fn ask(site: &Arc<Site>, request: Request) -> (Response<()>, String) {
        let (head, body) = router(Arc::clone(site)).oneshot(request).await.unwrap().into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        (Response::from_parts(head, ()), String::from_utf8(text.to_vec()).unwrap())
    }

    /// A form sent from a page of the site in `session`.
    fn form(session: &Session, path: &str, fields: &str) -> Request {
        let cookie = session.cookie();
        request("POST", path)
            .header("origin", OWN)
            .header("cookie", cookie.split(';').next().unwrap())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(fields.to_owned()))
            .unwrap()
    }

    #[tokio::test]
    async fn every_answer_is_protected() {
        let site = site();
        for path in ["/", "/find", "/style.css", "/nowhere", "/cards"] {
            let (answer, _) = ask(&site, request("GET", path).body(Body::empty()).unwrap()).await;
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap();
            assert!(header(CONTENT_SECURITY_POLICY).starts_with("default-src 'none'; "), "{path}");
            assert_eq!(
                (header(REFERRER_POLICY), header(CACHE_CONTROL)),
                ("no-referrer", "no-store"),
                "{path}"
            );
        }
        let foreign = Request::builder().uri("/").header("host", "evil.example").body(Body::empty()).unwrap();
        assert_eq!(ask(&site, foreign).await.0.status(), StatusCode::MISDIRECTED_REQUEST);
    }

    #[tokio::test]
    async fn a_visitor_gets_one_session_and_a_form_of_it() {
        let site = site();
        let (first, page) = ask(&site, request("GET", "/").body(Body::empty()).unwrap()).await;
        let cookie = first.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let again = request("GET", "/find").header("cookie", &cookie).body(Body::empty()).unwrap();
        let headers = again.headers().clone();
        let session = Session::of(&headers).unwrap();
        assert!(page.contains(&site.guard.token(&session)));
        assert!(!ask(&site, again).await.0.headers().contains_key(SET_COOKIE));
    }

    #[tokio::test]
    async fn a_form_from_elsewhere_is_refused() {
        let site = site();
        let (session, other) = (Session::random().unwrap(), Session::random().unwrap());
        let fields = |of: &Session| format!("csrf={}&holder=Ada&pan=4111111111111111", site.guard.token(of));
        for path in ["/cards", "/find", "/reveal"] {
            let mut foreign = form(&session, path, &fields(&session));
            foreign.headers_mut().insert("origin", HeaderValue::from_static("http://evil.example"));
            let mut no_session = form(&session, path, &fields(&session));
            no_session.headers_mut().remove("cookie");
            let requests = [
                foreign,
                no_session,
                form(&session, path, &fields(&other)),
                form(&session, path, "holder=Ada&pan=4111111111111111"),
            ];
            for request in requests {
                let (answer, page) = ask(&site, request).await;
                assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
                assert!(page.contains("no longer valid") && !page.contains("4111"), "{page}");
            }
        }
    }

    #[tokio::test]
    async fn a_form_that_cannot_be_used_comes_back_without_the_card_number() {
        let site = site();
        let session = Session::random().unwrap();
        let csrf = site.guard.token(&session);
        for (rest, status, words) in [
            ("pan=&holder=Ada", 422, "Enter the card number."),
            ("pan=4111111111111111&holder=+", 422, "Enter the name as it stands"),
            ("pan=4111111111111111&holder=Ada&expiry_date=13/30", 422, "Enter month and year"),
            ("pan=4111111111111111&holder=Ada", 503, "The vault cannot be reached"),
        ] {
            let (answer, page) = ask(&site, form(&session, "/cards", &format!("csrf={csrf}&{rest}"))).await;
            assert_eq!(answer.status().as_u16(), status, "{rest}");
            assert!(page.contains(words) && !page.contains("4111"), "{page}");
        }
        let (answer, page) = ask(&site, form(&session, "/find", &format!("csrf={csrf}&holder="))).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("holder-error"), "{page}");
    }

    #[tokio::test]
    async fn a_receipt_is_seen_by_its_own_session_only() {
        let site = site();
        let session = Session::random().unwrap();
        let receipt = Receipt {
            token: "tok_1".to_owned(),
            masked_pan: "411111******1111".to_owned(),
            brand: "Visa".to_owned(),
            created: true,
        };
        site.receipts.put(&session, receipt);
        let cookie = session.cookie();
        let own = request("GET", "/receipt").header("cookie", cookie.split(';').next().unwrap());
        let (_, page) = ask(&site, own.body(Body::empty()).unwrap()).await;
        assert!(page.contains("tok_1") && page.contains("411111******1111"), "{page}");
        let (answer, _) = ask(&site, request("GET", "/receipt").body(Body::empty()).unwrap()).await;
        assert_eq!(
            (answer.status(), &answer.headers()[LOCATION]),
            (StatusCode::SEE_OTHER, &HeaderValue::from_static("/"))
        );
    }
}
