//! One caller on one connection, who does everything and knows what the right answers are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Answer, NO_ANSWER, Pans, Refusal, Vault,
    http::Line,
    ledger::Ledger,
    refusal::{item, refusal},
};

/// Whoever waits for longer was forgotten: no limit of any test is near it.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many cards stay, so that there is always something to ask for.
const FEW: usize = 8;
/// Whoever has as many deletes instead of making more, so that a run may last.
const MANY: usize = 20_000;

/// Of some cards, so that there are rows that lead from a holder to them.
const HOLDER: &str = "Ada Lovelace";

/// What all callers of a load know together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shared {
    /// The ids of answers that were heard whole and that must have an entry in the audit log.
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
    /// Cards that everybody tokenizes and nobody deletes, with the token that was heard first.
    pub(crate) tokens: Arc<Mutex<HashMap<String, String>>>,
}

/// One caller, and what it remembers.
pub struct Caller {
    line: Line,
    first_jwt: String,
    jwt: String,
    pans: Pans,
    /// The cards that other callers have, too.
    common: Vec<String>,
    pub(crate) ledger: Ledger,
    pub(crate) shared: Shared,
    pub(crate) slowest: Duration,
}

/// What a caller does.
pub(crate) type Step = fn(&mut Caller) -> Result<(), Refusal>;

/// Everything, and how often each in relation to the others.
pub(crate) const STEPS: [(Step, u32); 13] = [
    (Caller::tokenize_new, 4),
    (Caller::tokenize_unsure, 3),
    (Caller::tokenize_known, 4),
    (Caller::tokenize_common, 2),
    (Caller::detokenize, 8),
    (Caller::detokenize_gone, 2),
    (Caller::show, 2),
    (Caller::batch, 1),
    (Caller::search, 2),
    (Caller::delete, 3),
    (Caller::seal, 1),
    (Caller::open, 1),
    (Caller::login, 1),
];

/// What uses every key and every operation of the HSM, in an order in which each can be done.
const ESSENTIAL: [Step; 7] = [
    Caller::tokenize_new,
    Caller::tokenize_known,
    Caller::detokenize,
    Caller::search,
    Caller::seal,
    Caller::open,
    Caller::login,
];

impl Caller {
    /// A caller whose cards follow from `random`.
    pub fn new(vault: &Vault, random: fastrand::Rng) -> Self {
        Self::with(vault, Pans::with(random), Vec::new(), Shared::default())
    }

    /// A caller among others: no two have the same `pans`, all have the cards in `common`.
    pub(crate) fn with(vault: &Vault, pans: Pans, common: Vec<String>, shared: Shared) -> Self {
        let jwt = vault.jwt();
        Self {
            line: Line::to(vault.socket()),
            first_jwt: jwt.clone(),
            jwt,
            pans,
            common,
            ledger: Ledger::default(),
            shared,
            slowest: Duration::ZERO,
        }
    }

    /// Does each thing once that the HSM is needed for, and asks whether the vault is ready.
    ///
    /// # Errors
    /// The first [`Refusal`].
    ///
    /// # Panics
    /// If an answer is wrong.
    pub fn everything(&mut self) -> Result<(), Refusal> {
        ESSENTIAL.iter().try_for_each(|step| step(self))?;
        match self.try_send("GET", "/readyz", "")?.status {
            200 => Ok(()),
            _ => Err(Refusal("not ready".to_owned())),
        }
    }

    /// Every card number it has sent.
    pub fn pans(&self) -> impl Iterator<Item = &str> {
        self.ledger.pans()
    }

    fn tokenize_new(&mut self) -> Result<(), Refusal> {
        if self.ledger.living().len() >= MANY {
            return self.delete();
        }
        let pan = self.pans.next_pan();
        let answer = self.tokenize(pan, None)?;
        assert_eq!(answer["created"], true, "a card that nobody has sent is known");
        Ok(())
    }

    /// One whose answer was not heard, or whose token is deleted.
    fn tokenize_unsure(&mut self) -> Result<(), Refusal> {
        let Some((pan, gone)) = self.ledger.take_unsure() else { return Ok(()) };
        self.tokenize(pan, gone).map(drop)
    }

    /// `gone` is a token of the card that was deleted.
    fn tokenize(&mut self, pan: String, gone: Option<String>) -> Result<Value, Refusal> {
        let mut card = json!({ "pan": pan });
        if has_holder(&pan) {
            card["holder"] = json!(HOLDER);
        }
        match self.ask("POST", "/v1/tokenize", &card) {
            Ok(answer) => {
                assert_ne!(
                    Some(&text(&answer["token"])),
                    gone.as_ref(),
                    "a deleted token is given out again"
                );
                self.ledger.made(pan, text(&answer["token"]));
                Ok(answer)
            }
            Err(refusal) => {
                self.ledger.unsure(pan, gone);
                Err(refusal)
            }
        }
    }

    fn tokenize_known(&mut self) -> Result<(), Refusal> {
        let Some((pan, token)) = self.ledger.any() else { return Ok(()) };
        let answer = self.ask("POST", "/v1/tokenize", &json!({ "pan": pan }))?;
        assert_eq!(answer["token"], token, "the same card has another token");
        assert_eq!(answer["created"], false, "a card that is known is made anew");
        Ok(())
    }

    fn tokenize_common(&mut self) -> Result<(), Refusal> {
        let Some(pan) = fastrand::choice(&self.common).cloned() else { return Ok(()) };
        let answer = self.ask("POST", "/v1/tokenize", &json!({ "pan": pan }))?;
        let token = text(&answer["token"]);
        let mut tokens = self.shared.tokens.lock().unwrap();
        assert_eq!(*tokens.entry(pan).or_insert_with(|| token.clone()), token, "two tokens for one card");
        Ok(())
    }

    fn detokenize(&mut self) -> Result<(), Refusal> {
        let Some((pan, token)) = self.ledger.any() else { return Ok(()) };
        let answer = self.ask("POST", "/v1/detokenize", &json!({ "token": token }))?;
        assert_eq!(answer["pan"], pan, "another card was given back");
        Ok(())
    }

    fn detokenize_gone(&mut self) -> Result<(), Refusal> {
        let Some(token) = self.ledger.any_gone() else { return Ok(()) };
        let answer = self.try_send("POST", "/v1/detokenize", &json!({ "token": token }).to_string())?;
        match answer.status {
            404 => assert_eq!(answer.code(), "unknown_token"),
            _ => return Err(refusal(&answer)),
        }
        Ok(())
    }

    fn show(&mut self) -> Result<(), Refusal> {
        let Some((pan, token)) = self.ledger.any() else { return Ok(()) };
        let record = self.ask("GET", &format!("/v1/tokens/{token}"), &Value::Null)?;
        assert_eq!((&record["token"], &record["last4"]), (&json!(token), &json!(pan[12..])));
        Ok(())
    }

    /// Cards old and new in one request, and then their tokens and one that is gone in another.
    fn batch(&mut self) -> Result<(), Refusal> {
        let known: Vec<_> = (0..2).filter_map(|_| self.ledger.any()).collect();
        let new = self.pans.take(2);
        let pans = known.iter().map(|(pan, _)| pan).chain(&new);
        let items: Vec<_> = pans.map(|pan| json!({ "pan": pan })).collect();
        let answer = self.ask("POST", "/v1/tokenize/batch", &json!({ "items": items }));
        let answer =
            answer.inspect_err(|_| new.iter().for_each(|pan| self.ledger.unsure(pan.clone(), None)))?;
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), items.len());
        let mut refused = Ok(());
        for (result, (_, token)) in results.iter().zip(&known) {
            match item(result) {
                Ok(result) => assert_eq!(result["token"], *token, "the same card has another token"),
                Err(refusal) => refused = Err(refusal),
            }
        }
        for (result, pan) in results[known.len()..].iter().zip(new) {
            match item(result) {
                Ok(result) => self.ledger.made(pan, text(&result["token"])),
                Err(refusal) => {
                    self.ledger.unsure(pan, None);
                    refused = Err(refusal);
                }
            }
        }
        refused?;

        let cards: Vec<_> = (0..4).filter_map(|_| self.ledger.any()).collect();
        let gone = self.ledger.any_gone();
        let tokens: Vec<_> = cards.iter().map(|(_, token)| token).chain(&gone).collect();
        let answer = self.ask("POST", "/v1/detokenize/batch", &json!({ "tokens": tokens }))?;
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), tokens.len());
        for (result, (pan, _)) in results.iter().zip(&cards) {
            assert_eq!(item(result)?["pan"], *pan, "another card was given back");
        }
        if let (Some(result), true) = (results.last(), gone.is_some()) {
            match result["error"]["code"].as_str() {
                Some("unknown_token") => {}
                _ => assert!(item(result).is_err(), "a token that was deleted is back"),
            }
        }
        Ok(())
    }

    fn search(&mut self) -> Result<(), Refusal> {
        let Some((pan, token)) = self.ledger.any() else { return Ok(()) };
        let answer = self.ask("POST", "/v1/tokens/search", &json!({ "pan": pan }))?;
        let found: Vec<_> =
            answer["tokens"].as_array().unwrap().iter().map(|record| &record["token"]).collect();
        assert_eq!(found, [&token], "the search found something else");
        Ok(())
    }

    /// First whatever it is not known of whether it was done.
    fn delete(&mut self) -> Result<(), Refusal> {
        let doubtful = self.ledger.take_doubtful();
        let was_asked = doubtful.is_some();
        let enough = self.ledger.living().len() > FEW;
        let next = doubtful.or_else(|| if enough { self.ledger.take_living() } else { None });
        let Some((pan, token)) = next else { return Ok(()) };
        let answer = self.try_send("DELETE", &format!("/v1/tokens/{token}"), "");
        let answer = answer.inspect_err(|_| self.ledger.doubtful(pan.clone(), token.clone()))?;
        match answer.status {
            204 => {}
            404 if was_asked => assert_eq!(answer.code(), "unknown_token"),
            _ => {
                self.ledger.doubtful(pan, token);
                return Err(refusal(&answer));
            }
        }
        self.ledger.deleted(pan, token);
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Refusal> {
        let pan = self.pans.next_pan();
        let card = json!({ "meta_data": { "card_number": pan, "expiry_date": "12/31" } });
        let answer = self.ask("POST", "/v1/envelopes", &card)?;
        self.ledger.sealed(pan, text(&answer["jwt"]));
        Ok(())
    }

    fn open(&mut self) -> Result<(), Refusal> {
        let Some((pan, jwt)) = self.ledger.any_envelope() else { return Ok(()) };
        let answer = self.ask("POST", "/v1/envelopes/open", &json!({ "jwt": jwt }))?;
        assert_eq!(answer["meta_data"]["card_number"], pan, "another card was given back");
        Ok(())
    }

    /// The JWT is used from then on, so a bad signature shows.
    fn login(&mut self) -> Result<(), Refusal> {
        let answer = self.ask("POST", "/v1/login", &json!({}))?;
        self.jwt = text(&answer["access_token"]);
        Ok(())
    }

    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, Refusal> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.try_send(method, path, &body)?;
        match answer.status {
            200 | 201 => Ok(answer.json()),
            401 | 422 => {
                // Over, or of a time that has not come: made before the clock leapt.
                self.jwt.clone_from(&self.first_jwt);
                self.ledger.forget_envelopes();
                Err(refusal(&answer))
            }
            _ => Err(refusal(&answer)),
        }
    }

    /// Sends one request with the caller's JWT.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn send(&mut self, method: &str, path: &str, body: &str) -> Answer {
        self.try_send(method, path, body).unwrap()
    }

    /// Sends one request with the caller's JWT, over a new connection if the last one ended.
    ///
    /// # Errors
    /// [`NO_ANSWER`].
    ///
    /// # Panics
    /// If nothing comes for half a minute.
    pub fn try_send(&mut self, method: &str, path: &str, body: &str) -> Result<Answer, Refusal> {
        let began = Instant::now();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.jwt,
            body.len()
        );
        let answer = self.line.exchange(request.as_bytes(), PATIENCE);
        self.slowest = self.slowest.max(began.elapsed());
        let Some(answer) = answer else {
            assert!(began.elapsed() < PATIENCE, "{method} {path}: nothing came");
            return Err(Refusal(NO_ANSWER.to_owned()));
        };
        let is_done = (200..300).contains(&answer.status);
        if is_done && path.starts_with("/v1/") {
            self.shared.heard.lock().unwrap().push(answer.headers["x-request-id"].clone());
        }
        Ok(answer)
    }
}

fn has_holder(pan: &str) -> bool {
    pan.ends_with(['0', '1', '2', '3', '4'])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
