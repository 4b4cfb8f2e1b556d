//! What is wrong, in words for the visitor.

use axum::http::StatusCode;
use vault_client::{Code, Error};

use crate::{form::Form, pages::FieldErrors};

/// What is wrong with a card before the vault has seen it. Whether the number is one the vault decides.
pub(crate) fn check_card(form: &Form) -> FieldErrors {
    let mut errors = FieldErrors { holder: check_holder(form.text("holder")), ..FieldErrors::default() };
    if form.text("pan").is_empty() {
        errors.pan = "Enter the card number.";
    }
    let expiry_date = form.text("expiry_date");
    if !expiry_date.is_empty() && !is_month_and_year(expiry_date) {
        errors.expiry_date = "Enter month and year as on the card, for example 04/29.";
    }
    errors
}

/// What is wrong with a name; empty if nothing is.
pub(crate) fn check_holder(holder: &str) -> &'static str {
    match holder.chars().count() {
        0 => "Enter the name as it stands on the card.",
        1..=MAX_HOLDER_CHARS => "",
        _ => "The name is longer than 200 characters.",
    }
}

/// The status and the words for what the vault, or the way to it, had to say. Logged without card data: no error of
/// `vault-client` has any.
pub(crate) fn explain(error: &Error) -> (StatusCode, String) {
    tracing::warn!("{error}");
    match error {
        Error::Api(problem) if problem.code == Code::InvalidRequest => {
            (StatusCode::UNPROCESSABLE_ENTITY, format!("The vault did not accept this: {}.", problem.detail))
        }
        Error::Api(problem) if matches!(problem.code, Code::UnknownToken | Code::TokenExpired) => {
            (StatusCode::NOT_FOUND, "The card is no longer in the vault.".to_owned())
        }
        Error::Api(problem) if matches!(problem.status, 400..500) && problem.code != Code::RateLimited => (
            StatusCode::BAD_GATEWAY,
            format!("The vault refused. Tell its operator: request {}.", problem.request_id),
        ),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The vault cannot be reached at the moment. Try again in a minute.".to_owned(),
        ),
    }
}

/// `MM/YY` or `MM/YYYY`.
fn is_month_and_year(text: &str) -> bool {
    let Some((month, year)) = text.split_once('/') else { return false };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let month_exists = month.len() == 2 && digits(month) && (1..=12).contains(&month.parse().unwrap_or(0));
    month_exists && matches!(year.len(), 2 | 4) && digits(year)
}

/// The most characters of a name that the vault takes.
const MAX_HOLDER_CHARS: usize = 200;

#[cfg(test)]
mod tests {
    use vault_client::Problem;

    use super::*;

    #[test]
    fn a_month_and_a_year_are_known_when_seen() {
        for good in ["01/29", "12/2030"] {
            assert!(is_month_and_year(good), "{good}");
        }
        for bad in ["", "1/29", "00/29", "13/29", "12-29", "12/9", "+1/29", "12/20a0", "/"] {
            assert!(!is_month_and_year(bad), "{bad}");
        }
    }

    #[test]
    fn the_visitor_learns_what_he_can_do_about_it() {
        let api = |code| explain(&Error::Api(Problem::new(code, "because", "r-1")));
        let (status, words) = api(Code::InvalidRequest);
        assert_eq!((status.as_u16(), words.as_str()), (422, "The vault did not accept this: because."));
        assert_eq!(api(Code::TokenExpired).0, StatusCode::NOT_FOUND);
        let (status, words) = api(Code::InsufficientScope);
        assert!(status == StatusCode::BAD_GATEWAY && words.contains("r-1") && !words.contains("because"));
        for code in [Code::RateLimited, Code::Overloaded, Code::HsmUnavailable] {
            assert_eq!(api(code).0, StatusCode::SERVICE_UNAVAILABLE, "{code}");
        }
        assert_eq!(explain(&Error::Broken).0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(check_holder(&"é".repeat(200)), "");
        assert_ne!(check_holder(&"é".repeat(201)), "");
    }
}
