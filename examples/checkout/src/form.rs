//! Forms, read into memory that is wiped: what a browser sends here may be card data.

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header::CONTENT_TYPE},
};
use http_body_util::BodyExt;
use vault_client::Sensitive;
use zeroize::Zeroizing;

/// The largest form: a name of 200 characters, percent-encoded, a search's cursor, and room.
const MAX_FORM_BYTES: usize = 8 * 1024;
/// The most fields a form of this site has, and some.
const MAX_FIELDS: usize = 8;

/// The fields of a form. Wiped on drop, never printed.
pub(crate) struct Form(Vec<(String, Sensitive)>);

/// Why a body is no form of this site.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Another content type.
    NotAForm,
    /// Larger than any form of this site.
    TooLarge,
    /// Broken off, badly encoded, not UTF-8, or a field comes twice.
    Malformed,
}

impl Form {
    /// Reads the `application/x-www-form-urlencoded` body of a request.
    pub(crate) async fn read(headers: &HeaderMap, mut body: Body) -> Result<Self, Unreadable> {
        let content_type =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Unreadable::NotAForm);
        }
        if body.size_hint().lower() > u64::try_from(MAX_FORM_BYTES).unwrap_or(u64::MAX) {
            return Err(Unreadable::TooLarge);
        }
        // Never grows, so no copy is left behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FORM_BYTES));
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Unreadable::Malformed)?.into_data() else { continue };
            if bytes.len().saturating_add(data.len()) > MAX_FORM_BYTES {
                return Err(Unreadable::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
        Self::parse(&bytes)
    }

    fn parse(body: &[u8]) -> Result<Self, Unreadable> {
        let mut fields: Vec<(String, Sensitive)> = Vec::with_capacity(MAX_FIELDS);
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut parts = pair.splitn(2, |byte| *byte == b'=');
            let name = decode(parts.next().unwrap_or_default())?.expose().to_owned();
            let value = decode(parts.next().unwrap_or_default())?;
            if fields.len() == MAX_FIELDS || fields.iter().any(|(known, _)| *known == name) {
                return Err(Unreadable::Malformed);
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// What stands in the field `name`, without spaces around it; empty if the form has no such field.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.expose().trim())
    }

    /// The same in memory of its own; `None` if there is nothing.
    pub(crate) fn value(&self, name: &str) -> Option<Sensitive> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(Sensitive::from)
    }
}

/// `+` and `%XX` decoded.
fn decode(encoded: &[u8]) -> Result<Sensitive, Unreadable> {
    // What is decoded is never longer, so this does not grow.
    let mut decoded = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut bytes = encoded.iter().copied();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match (hex(bytes.next()), hex(bytes.next())) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(Unreadable::Malformed),
            },
            byte => byte,
        });
    }
    let text = std::str::from_utf8(&decoded).map_err(|_| Unreadable::Malformed)?;
    Ok(Sensitive::from(text))
}

fn hex(digit: Option<u8>) -> Option<u8> {
    match digit? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn fields_are_decoded_and_trimmed() {
        let form = Form::parse(b"pan=4111+1111%201111+1111&holder=+%C3%89va%26Co+&empty=&flag").unwrap();
        assert_eq!(form.text("pan"), "4111 1111 1111 1111");
        assert_eq!(form.value("holder").unwrap().expose(), "Éva&Co");
        for nothing in ["empty", "flag", "absent"] {
            assert!(form.value(nothing).is_none(), "{nothing}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused() {
        for body in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=1&a=2", "%61=1&a=2", "a&b&c&d&e&f&g&h&i"] {
            assert!(matches!(Form::parse(body.as_bytes()), Err(Unreadable::Malformed)), "{body}");
        }
    }

    #[tokio::test]
    async fn only_small_forms_are_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(Form::read(&headers, Body::from("a=b")).await.err(), Some(Unreadable::NotAForm));
        let content_type = "application/x-www-form-urlencoded; charset=utf-8";
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        assert_eq!(Form::read(&headers, Body::from("a=b")).await.unwrap().text("a"), "b");
        let large = format!("a={}", "b".repeat(MAX_FORM_BYTES));
        assert_eq!(Form::read(&headers, Body::from(large)).await.err(), Some(Unreadable::TooLarge));
    }
}
