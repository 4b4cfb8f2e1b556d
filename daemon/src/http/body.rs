//! Request bodies: bounded in size and time, and read without repeating anything of them.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
    http::{HeaderMap, Request, header},
};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::error::Category;
use vault_api::Code;
use zeroize::Zeroizing;

use super::{ending::Ending, problem::Failure};
use crate::card::is_cvv_name;

/// How much of a body over the limit is read and thrown away, so that its sender comes to read the answer.
const MOST_DRAINED_BYTES: usize = 16 * 1_048_576;

/// A request came without all of its body, of which the rest was refused: the daemon is to stop.
#[derive(Debug, thiserror::Error)]
#[error("the vault is about to stop, and took no more of the body")]
struct CutOff;

/// The body of a request, which breaks off with [`CutOff`] if the connection ends before it is whole. hyper would drop the
/// request at that end, even one that is being answered, and so does not get to see it.
pub(super) struct Coming {
    body: Incoming,
    ending: Ending,
}

impl Coming {
    /// `body` of a request on the connection that `ending` is of.
    pub(super) fn new(body: Incoming, ending: Ending) -> Self {
        Self { body, ending }
    }
}

impl HttpBody for Coming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)));
        }
        // hyper looks for more only when it has passed on all that it has: there is no more of this body.
        self.ending.poll_dry(context).map(|()| Some(Err(CutOff.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads the whole body: at most `most` bytes, within `patience`.
pub(super) async fn read(
    request: Request<Body>,
    most: usize,
    patience: Duration,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    require_json(request.headers())?;
    read_bytes(request.into_body(), most, patience).await
}

/// A body that nothing can be said in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Reads the body where none is asked for: there is none, whatever it is declared to be, or it is an empty object.
pub(super) async fn read_nothing(
    request: Request<Body>,
    most: usize,
    patience: Duration,
) -> Result<(), Failure> {
    let (parts, body) = request.into_parts();
    let bytes = read_bytes(body, most, patience).await?;
    if bytes.is_empty() {
        return Ok(());
    }
    require_json(&parts.headers)?;
    parse(&bytes).map(|Nothing {}| ())
}

/// The same as [`read`], whatever it is declared to be.
pub(super) async fn read_bytes(
    mut body: Body,
    most: usize,
    patience: Duration,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let expected = body.size_hint().lower();
    let too_large =
        || Failure::new(Code::BodyTooLarge, format!("a body may have {most} bytes at most")).closing();
    if usize::try_from(expected).map_or(true, |bytes| bytes > most.max(MOST_DRAINED_BYTES)) {
        return Err(too_large());
    }
    let reading = async {
        let room = usize::try_from(expected).unwrap_or(0).min(most);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        let mut seen = 0_usize;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken_off(&*error.into_inner()).closing())?;
            let Ok(data) = frame.into_data() else { continue };
            seen += data.len();
            if seen <= most {
                append(&mut bytes, &data);
            } else if seen > MOST_DRAINED_BYTES {
                break;
            }
        }
        if seen > most { Err(too_large()) } else { Ok(bytes) }
    };
    tokio::time::timeout(patience, reading).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} seconds", patience.as_secs());
        Err(Failure::new(Code::RequestTimeout, detail).closing())
    })
}

fn broken_off(error: &(dyn Error + 'static)) -> Failure {
    match error.downcast_ref::<CutOff>() {
        // Nothing is done without its body, so whoever gets this may send it again.
        Some(cut_off) => Failure::new(Code::Overloaded, format!("{cut_off}: send the request again")),
        None => Failure::new(Code::InvalidRequest, "the body ends before it is complete, or is badly framed"),
    }
}

/// Appends without leaving an unwiped copy behind where the buffer has to move.
fn append(bytes: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    if bytes.capacity() - bytes.len() < data.len() {
        let mut larger = Zeroizing::new(Vec::with_capacity((bytes.len() + data.len()) * 2));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(data);
}

fn require_json(headers: &HeaderMap) -> Result<(), Failure> {
    let declared =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if headers.contains_key(header::CONTENT_ENCODING) {
        let detail = "send the body as it is, without content-encoding";
        return Err(Failure::new(Code::UnsupportedMediaType, detail));
    }
    let essence = declared.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        let detail = "send the header `content-type: application/json`";
        Err(Failure::new(Code::UnsupportedMediaType, detail))
    }
}

/// Reads a `T` from a JSON object. The failure says what is wrong and where, never what was sent.
///
/// # Errors
/// Code and detail: `malformed_json` for text that is not JSON, `invalid_request` for JSON that is no `T`.
pub fn parse_json<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, (Code, String)> {
    // Serde would read a struct from an array, too.
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err((Code::MalformedJson, "the body is empty: send a JSON object".to_owned()));
    }
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Err(match serde_json::from_slice::<IgnoredAny>(text) {
            Ok(_) => (Code::InvalidRequest, "the body must be a JSON object".to_owned()),
            Err(error) => (Code::MalformedJson, located("this is not JSON", &error)),
        });
    }
    serde_json::from_slice(text).map_err(|error| match error.classify() {
        Category::Data => (Code::InvalidRequest, located(&harmless(&error.to_string()), &error)),
        Category::Syntax | Category::Eof | Category::Io => {
            (Code::MalformedJson, located("this is not JSON", &error))
        }
    })
}

pub(super) fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Failure> {
    parse_json(text).map_err(|(code, detail)| Failure::new(code, detail))
}

fn located(what: &str, error: &serde_json::Error) -> String {
    format!("{what}, at line {} column {}", error.line(), error.column())
}

/// Says again what serde says, without the parts that repeat the request.
fn harmless(message: &str) -> String {
    if let Some(name) = quoted_after(message, "unknown field `") {
        if is_cvv_name(name) {
            return "a card verification value is never stored: leave it out".to_owned();
        }
        // Says nothing of what is expected; the name that was sent could.
        if message.contains("there are no fields") {
            return "unknown field; expected none".to_owned();
        }
        return format!("unknown field; {}", expectation(message));
    }
    // The names in these come from the types, not from the request.
    for (start, what) in [("missing field `", "is missing"), ("duplicate field `", "comes twice")] {
        if let Some(name) = quoted_after(message, start) {
            return format!("field `{name}` {what}");
        }
    }
    if message.starts_with("duplicate name in metadata") {
        return "a name in metadata comes twice".to_owned();
    }
    format!("a value is not what it must be; {}", expectation(message))
}

fn quoted_after<'m>(message: &'m str, start: &str) -> Option<&'m str> {
    message.strip_prefix(start)?.split('`').next()
}

/// What serde expected instead: the tail of its message, which comes from the types.
fn expectation(message: &str) -> &str {
    let tail = message
        .rfind("expected ")
        .and_then(|start| message.get(start..))
        // An untagged type of ours says what it wants without the word.
        .or_else(|| message.starts_with("a string, a number or a boolean").then_some(message))
        .unwrap_or("see the API's description");
    match tail.split(" at line ").next().unwrap_or_default() {
        "expected u64" | "expected usize" => "expected a whole number",
        expected => expected,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vault_api::TokenizeRequest;

    use super::*;

    fn refusal(text: &str) -> (Code, String) {
        parse_json::<TokenizeRequest>(text.as_bytes()).err().unwrap()
    }

    #[test]
    fn not_json_is_malformed_and_wrong_json_is_invalid() {
        for (text, code) in [
            ("", Code::MalformedJson),
            ("{", Code::MalformedJson),
            (r#"{"pan":"#, Code::MalformedJson),
            (r#"{"pan":"1"} x"#, Code::MalformedJson),
            ("null", Code::InvalidRequest),
            (r#"["4111111111111111"]"#, Code::InvalidRequest),
            (r#"{"pan":4111111111111111}"#, Code::InvalidRequest),
            (r#"{"pan":"1","pan":"1"}"#, Code::InvalidRequest),
            (r#"{"pan":"1","4111111111111111":1}"#, Code::InvalidRequest),
            (r#"{"pan":"1","expires_in":"4111111111111111"}"#, Code::InvalidRequest),
            (r#"{"pan":"1","metadata":{"a":["4111111111111111"]}}"#, Code::InvalidRequest),
            (r#"{"template":"4111111111111111"}"#, Code::InvalidRequest),
        ] {
            let (found, detail) = refusal(text);
            assert_eq!(found, code, "{text}: {detail}");
            assert!(!detail.contains("4111"), "{text}: {detail}");
        }
    }

    #[test]
    fn a_cvv_is_refused_by_name() {
        assert!(refusal(r#"{"pan":"1","cvv":"123"}"#).1.contains("never stored"));
    }

    #[test]
    fn a_name_where_none_is_expected_is_not_repeated() {
        for name in ["4111111111111111", "expected 4111111111111111", "there are no fields"] {
            let (code, detail) =
                parse_json::<Nothing>(format!(r#"{{"{name}":1}}"#).as_bytes()).err().unwrap();
            assert_eq!(code, Code::InvalidRequest);
            assert!(detail.starts_with("unknown field; expected none, at line 1"), "{detail}");
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let deep = format!(r#"{{"pan":"1","metadata":{{"a":{}"#, "[".repeat(10_000));
        assert_eq!(refusal(&deep).0, Code::MalformedJson);
        assert_eq!(refusal(&"[".repeat(10_000)).0, Code::MalformedJson);
    }

    #[test]
    fn invalid_utf8_is_malformed() {
        assert_eq!(
            parse_json::<TokenizeRequest>(b"{\"pan\":\"\xff\"}").err().unwrap().0,
            Code::MalformedJson
        );
    }

    proptest! {
        #[test]
        fn no_refusal_repeats_what_was_sent(secret in "[0-9]{12,19}", shape in 0..6) {
            let text = match shape {
                0 => format!(r#"{{"{secret}":1}}"#),
                1 => format!(r#"{{"pan":{{"{secret}":1}}}}"#),
                2 => format!(r#"{{"pan":"1","expires_in":"{secret}"}}"#),
                3 => format!(r#"{{"pan":"1","`, expected {secret}":"{secret}"}}"#),
                4 => format!(r#"{{"pan":"1","expires_in":-{secret}}}"#),
                _ => format!(r#"{{"pan":"1","metadata":{{"expected {secret}":{{"expected {secret}":1}}}}}}"#),
            };
            let (_, detail) = refusal(&text);
            prop_assert!(!detail.contains(&secret), "{}", detail);
        }
    }
}
