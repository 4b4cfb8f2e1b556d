//! Answers of the vault, and how they are understood.

use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use vault_api::{Problem, Sensitive};

use crate::{Error, RateLimit, wiping::WipingBuffer};

/// The largest answer the client reads, in bytes: a full batch has some 500 KB, a page of the audit log up to 4 MB and a line.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// A card as the vault gives it back. Wiped on drop, never printed.
#[derive(Debug, Deserialize)]
pub struct Detokenized {
    /// The PAN, digits only.
    pub pan: Sensitive,
    /// The card's expiry date as it came with the PAN, if it did.
    #[serde(default)]
    pub expiry_date: Option<Sensitive>,
}

/// A complete answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Whether it is `application/problem+json`.
    pub(crate) is_problem: bool,
    /// How long the vault asks to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// What it says of the limits on the caller.
    pub(crate) limit: Option<RateLimit>,
    /// What the vault's log knows the request by.
    pub(crate) request_id: Option<String>,
    pub(crate) body: WipingBuffer,
}

impl Answer {
    /// What a removal gets whose first answer was lost.
    pub(crate) fn already_done() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            is_problem: false,
            retry_after: None,
            limit: None,
            request_id: None,
            body: WipingBuffer::default(),
        }
    }

    /// `Ok` if the status is one of `expected`.
    pub(crate) fn check(&self, expected: &[StatusCode]) -> Result<(), Error> {
        let status = self.status.as_u16();
        if self.is_problem {
            let problem = self.json::<Problem>();
            return Err(problem.map_or_else(
                |_| Error::Protocol(format!("status {status} with an error code this client does not know")),
                Error::Api,
            ));
        }
        if expected.contains(&self.status) {
            Ok(())
        } else {
            Err(Error::Protocol(format!("status {status} is none the vault gives here")))
        }
    }

    /// The body as a `T`.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(self.body.as_ref()).map_err(|e| {
            // Only the place: serde's message may repeat a value, and the value may be card data.
            let (status, line, column) = (self.status.as_u16(), e.line(), e.column());
            Error::Protocol(format!("status {status} with unexpected JSON at line {line}, column {column}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vault_api::Code;

    use super::*;

    fn answer(status: u16, is_problem: bool, body: &serde_json::Value) -> Answer {
        let mut bytes = WipingBuffer::default();
        bytes.push(body.to_string().as_bytes());
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, is_problem, retry_after: None, limit: None, request_id: None, body: bytes }
    }

    #[test]
    fn a_problem_is_an_api_error_even_where_its_status_is_expected() {
        let problem = Problem::new(Code::Overloaded, "too much work is waiting", "r-1");
        let answer = answer(503, true, &serde_json::to_value(&problem).unwrap());
        let error = answer.check(&[StatusCode::SERVICE_UNAVAILABLE]).unwrap_err();
        assert_eq!(error.code(), Some(Code::Overloaded));
    }

    #[test]
    fn an_unknown_code_and_an_unexpected_status_are_protocol_errors() {
        let mut problem = serde_json::to_value(Problem::new(Code::Overloaded, "", "r-1")).unwrap();
        problem["code"] = json!("from_the_future");
        for answer in [answer(503, true, &problem), answer(302, false, &json!({}))] {
            assert!(matches!(answer.check(&[StatusCode::OK]), Err(Error::Protocol(_))));
        }
    }

    #[test]
    fn a_card_comes_without_its_expiry_date_too() {
        let card: Detokenized = answer(200, false, &json!({"pan": "4111111111111111"})).json().unwrap();
        assert_eq!(card.pan.expose(), "4111111111111111");
        assert!(card.expiry_date.is_none());
        assert!(!format!("{card:?}").contains("4111"), "{card:?}");
    }

    #[test]
    fn an_answer_that_is_not_understood_is_not_repeated() {
        for body in [json!({"pan": 4_111_111_111_111_111_u64}), json!("4111111111111111")] {
            let error = answer(200, false, &body).json::<Detokenized>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("4111"), "{error:?}");
        }
    }
}
