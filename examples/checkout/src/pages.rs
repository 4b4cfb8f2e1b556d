//! The pages, escaped by their templates and rendered into memory that is wiped once the answer is sent.

use std::fmt;

use askama::Template;
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use vault_client::{Brand, Detokenized, TokenRecord};
use zeroize::Zeroizing;

use crate::receipts::Receipt;

/// The largest page: 20 found cards with names of 200 escaped characters.
const MAX_PAGE_BYTES: usize = 128 * 1024;

/// The form that saves a card.
#[derive(Template, Default)]
#[template(path = "save.html")]
pub(crate) struct Save<'a> {
    pub(crate) csrf: &'a str,
    /// What was typed before; never the card number.
    pub(crate) holder: &'a str,
    pub(crate) expiry_date: &'a str,
    pub(crate) errors: FieldErrors,
}

/// What is wrong with which field; empty where nothing is.
#[derive(Default)]
pub(crate) struct FieldErrors {
    pub(crate) pan: &'static str,
    pub(crate) holder: &'static str,
    pub(crate) expiry_date: &'static str,
    /// With the form as a whole.
    pub(crate) form: String,
}

impl FieldErrors {
    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        let Self { pan, holder, expiry_date, form } = self;
        [*pan, *holder, *expiry_date, form.as_str()].iter().any(|error| !error.is_empty())
    }
}

/// A card that was saved.
#[derive(Template)]
#[template(path = "receipt.html")]
pub(crate) struct Saved {
    pub(crate) receipt: Receipt,
}

/// The form that finds cards, and what it found.
#[derive(Template, Default)]
#[template(path = "find.html")]
pub(crate) struct Find<'a> {
    pub(crate) csrf: &'a str,
    pub(crate) holder: &'a str,
    /// With the name; empty if nothing is wrong.
    pub(crate) error: &'static str,
    /// With the search as a whole.
    pub(crate) trouble: String,
    pub(crate) found: Option<Found>,
}

/// One page of a search.
pub(crate) struct Found {
    pub(crate) cards: Vec<TokenRecord>,
    /// Where the next page begins; empty if there is none.
    pub(crate) cursor: String,
}

/// A card number in full.
#[derive(Template)]
#[template(path = "revealed.html")]
pub(crate) struct Revealed<'a> {
    pub(crate) token: &'a str,
    pub(crate) card: Detokenized,
}

/// A request that led nowhere.
#[derive(Template)]
#[template(path = "trouble.html")]
pub(crate) struct Trouble<'a> {
    pub(crate) title: &'a str,
    pub(crate) advice: &'a str,
}

/// The answer with `template`, which is escaped HTML.
pub(crate) fn page(status: StatusCode, template: &impl Template) -> Response {
    let mut text = WipingText::default();
    if template.render_into(&mut text).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let mut answer = Response::new(Body::from(Bytes::from_owner(text.0)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    answer
}

/// The name of a brand, for people.
pub(crate) fn brand_name(brand: Brand) -> String {
    match brand {
        Brand::Unknown => "Card".to_owned(),
        brand => format!("{brand:?}"),
    }
}

/// The name of a card's brand, for its template.
fn brand_of(card: &TokenRecord) -> String {
    brand_name(card.brand)
}

/// Text that never moves to a larger allocation, so no copy is left behind: a page that is too large fails.
struct WipingText(Zeroizing<String>);

impl Default for WipingText {
    fn default() -> Self {
        Self(Zeroizing::new(String::with_capacity(MAX_PAGE_BYTES)))
    }
}

impl fmt::Write for WipingText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.0.capacity() - self.0.len() {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use vault_client::api::Metadata;

    use super::*;

    fn text(template: &impl Template) -> String {
        template.render().unwrap()
    }

    fn record(holder: &str) -> TokenRecord {
        TokenRecord {
            token: "tok_1".to_owned(),
            masked_pan: "411111******1111".to_owned(),
            bin: "411111".to_owned(),
            last4: "1111".to_owned(),
            brand: Brand::Visa,
            template: "default".to_owned(),
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            expires_at: None,
            key_version: 1,
            ciphertext_id: "c".to_owned(),
            fingerprint: "f".to_owned(),
            holder: Some(holder.into()),
            metadata: Metadata::default(),
        }
    }

    #[test]
    fn what_a_visitor_types_is_escaped() {
        let evil = "\"><script>alert(1)</script>";
        let save = text(&Save { csrf: "t", holder: evil, expiry_date: evil, ..Save::default() });
        let found = Found { cards: vec![record(evil)], cursor: evil.to_owned() };
        let find = text(&Find { csrf: "t", holder: evil, found: Some(found), ..Find::default() });
        for page in [save, find] {
            assert!(!page.contains("<script") && page.contains("&#60;script"), "{page}");
        }
    }

    #[test]
    fn an_error_is_tied_to_its_field_and_gets_the_focus() {
        let clean = text(&Save { csrf: "t", ..Save::default() });
        assert!(!clean.contains("aria-invalid") && !clean.contains("Error:"), "{clean}");
        let errors = FieldErrors { pan: "Enter a card number.", ..FieldErrors::default() };
        let page = text(&Save { csrf: "t", errors, ..Save::default() });
        assert!(page.contains("<title>Error: "), "{page}");
        assert!(page.contains(r#"id="pan-error""#) && page.contains("Enter a card number."), "{page}");
        let field = page.split("<input").find(|field| field.contains(r#"name="pan""#)).unwrap();
        let field = field.split('>').next().unwrap();
        for attribute in
            [r#"aria-invalid="true""#, r#"aria-describedby="pan-hint pan-error""#, "autofocus", "cc-number"]
        {
            assert!(field.contains(attribute), "{attribute} in {field}");
        }
        assert!(!field.contains("value="), "a card number is never sent back: {field}");
    }

    #[test]
    fn a_found_card_is_masked_until_it_is_revealed() {
        let found = Found { cards: vec![record("Ada")], cursor: String::new() };
        let page = text(&Find { csrf: "t", holder: "Ada", found: Some(found), ..Find::default() });
        assert!(page.contains("411111******1111") && page.contains("2026-01-02"), "{page}");
        assert!(page.contains(r#"name="csrf" value="t""#) && !page.contains("Show more"), "{page}");
        let card = Detokenized { pan: "4111111111111111".into(), expiry_date: None };
        assert!(text(&Revealed { token: "tok_1", card }).contains("4111111111111111"));
    }

    #[test]
    fn a_page_does_not_outgrow_its_memory() {
        let mut text = WipingText::default();
        let before = text.0.as_ptr();
        text.write_str(&"x".repeat(MAX_PAGE_BYTES)).unwrap();
        assert!(text.write_str("x").is_err());
        assert_eq!(text.0.as_ptr(), before);
    }
}
