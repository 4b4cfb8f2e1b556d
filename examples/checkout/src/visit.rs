//! What every page does with a visitor: the session, its own forms, and what to say where nothing can be done.

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{LOCATION, SET_COOKIE},
    },
    response::{IntoResponse, Response},
};

use crate::{
    csrf::{Guard, Session},
    form::{Form, Unreadable},
    pages::{Trouble, page},
};

/// The form of a request that was sent from a page of this site, in its session.
pub(crate) async fn own_form(
    guard: &Guard,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Session, Form), Response> {
    let stale = || {
        trouble(
            StatusCode::FORBIDDEN,
            "This form is no longer valid",
            "Nothing was done. Open the page again and fill in its form; this site needs cookies.",
        )
    };
    if !guard.is_own_page(headers) {
        return Err(stale());
    }
    let session = Session::of(headers).ok_or_else(stale)?;
    let form = Form::read(headers, body).await.map_err(|why| {
        let status = match why {
            Unreadable::NotAForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Unreadable::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Unreadable::Malformed => StatusCode::BAD_REQUEST,
        };
        trouble(
            status,
            "This form cannot be read",
            "Nothing was done. Open the page again and fill in its form.",
        )
    })?;
    if guard.owns(&session, form.text("csrf")) { Ok((session, form)) } else { Err(stale()) }
}

/// What `answer` makes for the visitor's session, and the cookie of a new one if there is none.
pub(crate) fn in_session(headers: &HeaderMap, answer: impl FnOnce(&Session) -> Response) -> Response {
    if let Some(session) = Session::of(headers) {
        return answer(&session);
    }
    let Ok(session) = Session::random() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let mut answer = answer(&session);
    if let Ok(cookie) = HeaderValue::from_str(&session.cookie()) {
        answer.headers_mut().insert(SET_COOKIE, cookie);
    }
    answer
}

/// The page of a request that led nowhere.
pub(crate) fn trouble(status: StatusCode, title: &str, advice: &str) -> Response {
    page(status, &Trouble { title, advice })
}

/// A redirect after a form, so that a reload does not send the form again.
pub(crate) fn see_other(path: &'static str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response()
}
