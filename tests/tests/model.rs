//! The daemon against a model of it (`tests/src/model.rs`): whatever callers do in whatever order, and however often it is killed
//! in between, its answers are those of the model. What fails is made as short as possible.
//!
//! `VAULT_MODEL_CASES` says how many sequences are tried.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{cell::RefCell, io::Write as _, thread, time::Duration};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use vault_tests::{Answer, Model, Pans, Step, Template, Vault, connect, seeded_random};

const CARDS: u8 = 3;
const MOST_STEPS: usize = 24;

fn step() -> impl Strategy<Value = Step> {
    let template = prop_oneof![Just(Template::Default), Just(Template::Numeric), Just(Template::Once)];
    let (card, token, after_us) = (|| 0..CARDS, || 0_usize..100, || 0_u64..4_000);
    prop_oneof![
        8 => (card(), template).prop_map(|(card, template)| Step::Tokenize(card, template)),
        5 => token().prop_map(Step::Detokenize),
        4 => token().prop_map(Step::Delete),
        3 => card().prop_map(Step::Search),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => (card(), after_us()).prop_map(|(card, after_us)| Step::KillTokenizing(card, after_us)),
        1 => (token(), after_us()).prop_map(|(token, after_us)| Step::KillDeleting(token, after_us)),
    ]
}

/// A vault, and what a model of it needs to be compared with it.
struct Compared<'v> {
    vault: &'v mut Vault,
    model: Model,
    pans: Vec<String>,
    tokens: Vec<String>,
}

impl Compared<'_> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Tokenize(card, template) => self.tokenize(card, template),
            Step::Detokenize(token) => {
                if let Some(token) = self.model.token(token) {
                    self.detokenize(token);
                }
            }
            Step::Delete(token) => {
                let Some(token) = self.model.token(token) else { return };
                let answer = self.vault.request("DELETE", &format!("/v1/tokens/{}", self.tokens[token]), "");
                assert_eq!(answer.status, if self.model.delete(token) { 204 } else { 404 }, "{answer:?}");
            }
            Step::Search(card) => self.search(card),
            Step::Restart => {
                assert!(self.vault.stop().success());
                self.start();
            }
            Step::Kill => {
                self.vault.kill();
                self.start();
            }
            Step::KillTokenizing(card, after_us) => {
                let body = json!({ "pan": self.pans[usize::from(card)] });
                self.kill_during("POST", "/v1/tokenize", &body, after_us);
                // It may have been done: then this is the token of that time, which nobody was told.
                self.start_with(|compared| {
                    let (token, is_new) = compared.model.tokenize(card, Template::Default);
                    let answer = compared.post("/v1/tokenize", &body);
                    compared.take_token(token, is_new, &answer);
                });
            }
            Step::KillDeleting(token, after_us) => {
                let Some(token) = self.model.token(token) else { return };
                let path = format!("/v1/tokens/{}", self.tokens[token]);
                self.kill_during("DELETE", &path, &json!({}), after_us);
                self.start_with(|compared| {
                    if compared.vault.request("GET", &path, "").status == 404 {
                        compared.model.delete(token);
                    }
                });
            }
        }
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.vault.request("POST", path, &body.to_string())
    }

    fn tokenize(&mut self, card: u8, template: Template) {
        let (token, is_new) = self.model.tokenize(card, template);
        let body = json!({ "pan": self.pans[usize::from(card)], "template": template.name() });
        let answer = self.post("/v1/tokenize", &body);
        assert_eq!(answer.status, if is_new { 201 } else { 200 }, "{answer:?}");
        self.take_token(token, is_new, &answer);
    }

    fn take_token(&mut self, token: usize, is_new: bool, answer: &Answer) {
        let text = answer.json()["token"].as_str().unwrap().to_owned();
        if is_new {
            assert!(!self.tokens.contains(&text), "a token was given out twice");
            self.tokens.push(text);
        } else {
            assert_eq!(self.tokens[token], text, "a second token for one card");
        }
    }

    fn detokenize(&self, token: usize) {
        let answer = self.post("/v1/detokenize", &json!({ "token": self.tokens[token] }));
        match self.model.detokenize(token) {
            Some(card) => assert_eq!(answer.json()["pan"], self.pans[usize::from(card)], "{answer:?}"),
            None => assert_eq!(answer.status, 404, "{answer:?}"),
        }
    }

    fn search(&self, card: u8) {
        let answer = self.post("/v1/tokens/search", &json!({ "pan": self.pans[usize::from(card)] })).json();
        let mut found: Vec<_> =
            answer["tokens"].as_array().unwrap().iter().map(|one| &one["token"]).collect();
        let mut expected: Vec<_> = self.model.of(card).into_iter().map(|token| &self.tokens[token]).collect();
        found.sort_by_key(|token| token.as_str().unwrap());
        expected.sort();
        assert_eq!(found, expected, "tokens of one card");
    }

    /// Sends a request and kills the daemon, whether it has answered or not.
    fn kill_during(&mut self, method: &str, path: &str, body: &Value, after_us: u64) {
        let (body, jwt) = (body.to_string(), self.vault.jwt());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = connect(&self.vault.socket()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        thread::sleep(Duration::from_micros(after_us));
        self.vault.kill();
    }

    fn start(&mut self) {
        self.start_with(|_| {});
    }

    /// Starts the vault, has `settle` find out what has been done, and compares everything.
    fn start_with(&mut self, settle: impl FnOnce(&mut Self)) {
        self.vault.restart();
        settle(self);
        (0..self.model.given()).for_each(|token| self.detokenize(token));
        (0..CARDS).for_each(|card| self.search(card));
    }
}

#[test]
fn the_daemon_does_what_the_model_does() {
    let mut random = seeded_random();
    let cases = std::env::var("VAULT_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let config = ProptestConfig {
        max_shrink_iters: 100,
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    };
    let seed: [u8; 32] = std::array::from_fn(|_| random.u8(..));
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    // One vault for all: each sequence has cards of its own.
    let shared = RefCell::new((Vault::start(), Pans::with(random)));
    let ran = runner.run(&vec(step(), 1..MOST_STEPS), |steps| {
        let (vault, pans) = &mut *shared.borrow_mut();
        let pans = pans.take(CARDS.into());
        let mut compared = Compared { vault, model: Model::default(), pans, tokens: Vec::new() };
        for step in steps {
            compared.step(step);
        }
        Ok(())
    });
    assert!(ran.is_ok(), "{}", ran.unwrap_err());
}
