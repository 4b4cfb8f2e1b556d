//! Answers to a batch: one result for each item, and one bad item fails alone.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use vault_api::{Code, Sensitive};

use crate::{Detokenized, Error, answer::Answer};

/// Why one item of a batch failed.
///
/// Unlike [`vault_api::ItemError`] it can hold a code of a newer vault, so that one item with such a code does not
/// cost the caller the results of all the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail} ({code_name}{})", .request_id.as_ref().map_or_else(String::new, |id| format!(", request {id}")))]
#[non_exhaustive]
pub struct ItemError {
    /// The stable code as it came; match on [`ItemError::code`].
    #[serde(rename = "code")]
    pub code_name: String,
    /// The status a single request would have had.
    pub status: u16,
    /// A short summary, the same for every occurrence.
    pub title: String,
    /// What is wrong here and what to change; never card data.
    pub detail: String,
    /// The id of the batch's request, as in the vault's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl ItemError {
    /// As one of the answer to the request `id`.
    fn of_request(self, id: Option<&String>) -> Self {
        Self { request_id: id.cloned(), ..self }
    }

    /// The stable code; `None` if it is one of a newer vault, of which [`ItemError::status`] tells the kind.
    pub fn code(&self) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == self.code_name)
    }
}

/// The results of a batch of `count` items, in their order.
pub(crate) fn results<T>(answer: &Answer, count: usize) -> Result<Vec<Result<T, ItemError>>, Error>
where
    T: DeserializeOwned,
{
    #[derive(Deserialize)]
    struct Items<T> {
        results: Vec<Item<T>>,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Item<T> {
        Failed { error: ItemError },
        Done(T),
    }

    let Items { results } = answer.json()?;
    same_count(results.len(), count)?;
    let result = |item| match item {
        Item::Failed { error } => Err(error.of_request(answer.request_id.as_ref())),
        Item::Done(answer) => Ok(answer),
    };
    Ok(results.into_iter().map(result).collect())
}

/// As [`results`], for card data.
///
/// An untagged enum would read each PAN into a buffer that is not wiped before serde knows the variant. This goes
/// from the wire straight into [`Sensitive`].
pub(crate) fn cards(answer: &Answer, count: usize) -> Result<Vec<Result<Detokenized, ItemError>>, Error> {
    #[derive(Deserialize)]
    struct Cards {
        results: Vec<Card>,
    }

    #[derive(Deserialize)]
    struct Card {
        pan: Option<Sensitive>,
        expiry_date: Option<Sensitive>,
        error: Option<ItemError>,
    }

    let Cards { results } = answer.json()?;
    same_count(results.len(), count)?;
    results
        .into_iter()
        .map(|card| match (card.pan, card.error) {
            (Some(pan), None) => Ok(Ok(Detokenized { pan, expiry_date: card.expiry_date })),
            (None, Some(error)) => Ok(Err(error.of_request(answer.request_id.as_ref()))),
            _ => Err(Error::Protocol("a result is neither a card nor an error".into())),
        })
        .collect()
}

/// A batch with a missing or an extra result would give one caller another's card.
fn same_count(results: usize, items: usize) -> Result<(), Error> {
    if results == items {
        Ok(())
    } else {
        Err(Error::Protocol(format!("{results} results for {items} items")))
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::wiping::WipingBuffer;

    fn answer(results: &Value) -> Answer {
        let mut body = WipingBuffer::default();
        body.push(json!({"results": results}).to_string().as_bytes());
        let request_id = Some("r-1".to_owned());
        Answer { status: StatusCode::OK, is_problem: false, retry_after: None, limit: None, request_id, body }
    }

    fn failed(code: &str) -> Value {
        json!({"error": {"code": code, "status": 404, "title": "gone", "detail": "no such token"}})
    }

    #[test]
    fn each_result_of_a_card_batch_is_a_card_or_an_error() {
        let answer =
            answer(&json!([{"pan": "4111111111111111", "expiry_date": "12/30"}, failed("unknown_token")]));
        let results = cards(&answer, 2).unwrap();
        assert_eq!(results[0].as_ref().unwrap().expiry_date.as_ref().unwrap().expose(), "12/30");
        let error = results[1].as_ref().unwrap_err();
        assert_eq!(error.code(), Some(Code::UnknownToken));
        assert_eq!(error.to_string(), "no such token (unknown_token, request r-1)");
    }

    #[test]
    fn a_code_of_a_newer_vault_costs_nothing_but_its_own_item() {
        let answer = answer(&json!([failed("from_the_future"), {"pan": "4111111111111111"}]));
        let cards = cards(&answer, 2).unwrap();
        let plain = results::<Detokenized>(&answer, 2).unwrap();
        for mut results in [cards, plain] {
            assert_eq!(results.pop().unwrap().unwrap().pan.expose(), "4111111111111111");
            let error = results.pop().unwrap().unwrap_err();
            assert_eq!((error.code(), error.status), (None, 404));
            assert_eq!(error.code_name, "from_the_future");
        }
    }

    #[test]
    fn a_batch_answer_of_the_wrong_shape_is_refused() {
        let both = json!({"pan": "1", "error": failed("invalid_pan")["error"]});
        for results in [json!([{}]), json!([both])] {
            assert!(cards(&answer(&results), 1).is_err(), "{results}");
        }
        let one = answer(&json!([{"pan": "4111111111111111"}]));
        assert!(matches!(cards(&one, 2), Err(Error::Protocol(_))));
        assert!(matches!(results::<Detokenized>(&one, 2), Err(Error::Protocol(_))));
    }
}
