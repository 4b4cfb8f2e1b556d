//! Refusals that a fault may bring about; everything else that is no answer is wrong.

use serde_json::Value;
use vault_client::Code;

use crate::Answer;

/// The [`Refusal`] of a connection that ended, or could not be made, before there was an answer.
pub const NO_ANSWER: &str = "no answer";

/// A refusal that a fault may bring about: the code of a 503, or of a JWT or envelope that is over, or [`NO_ANSWER`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// The refusal that an answer is.
///
/// # Panics
/// If no fault may bring it about, or it is not documented.
pub(crate) fn refusal(answer: &Answer) -> Refusal {
    let code = answer.code();
    let documented = Code::ALL.iter().find(|documented| documented.as_str() == code);
    assert_eq!(documented.map(|code| code.status()), Some(answer.status), "{answer:?}");
    assert!([401, 422, 503].contains(&answer.status), "{answer:?}");
    Refusal(code)
}

/// What became of one item of a batch.
///
/// # Panics
/// If it is an error that no fault may bring about.
pub(crate) fn item(result: &Value) -> Result<&Value, Refusal> {
    let Some(code) = result["error"]["code"].as_str() else { return Ok(result) };
    let documented = Code::ALL.iter().find(|documented| documented.as_str() == code);
    assert_eq!(documented.map(|code| code.status()), Some(503), "{result}");
    Err(Refusal(code.to_owned()))
}
