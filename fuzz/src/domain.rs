//! The whole domain against a model: random operations on a real vault, over a real store and a real token, with each
//! answer held against what it ought to be.

use std::{path::Path, slice, time::Duration};

use tempfile::TempDir;
use vault_api::{Metadata, MetadataValue, Sensitive};
use vaultd::{
    card::Pan,
    hsm::{KeyName, Purpose},
    store::KeyState,
    vault::{NewCard, RecordChange, Search, Token, VaultError, inspect},
};

use crate::{
    model::{Card, HOLDERS, Model, Owned, PANS, TEMPLATES, TENANTS},
    session::Session,
    world::{scratch, world},
};

/// So many that a run takes some milliseconds.
const MOST_OPERATIONS: usize = 48;
/// Keys that records depend on: those for signing take long to make.
const PURPOSES: [Purpose; 3] = [Purpose::Record, Purpose::Fingerprint, Purpose::Holder];
const MOST_PAGES: usize = 64;

/// Each byte pair or so is an operation. Whatever the order of operations, each answer is the model's, restarts and
/// rewraps change none, and in the end every record opens, every index row leads to one, and the census is right.
pub fn domain(bytes: &[u8]) {
    let mut run = Run::new(bytes);
    for _ in 0..MOST_OPERATIONS {
        let Some(operation) = run.bytes.next() else { break };
        run.step(*operation);
    }
    run.end();
}

struct Run<'b> {
    bytes: slice::Iter<'b, u8>,
    dir: TempDir,
    session: Option<Session>,
    model: Model,
}

impl<'b> Run<'b> {
    fn new(bytes: &'b [u8]) -> Self {
        let dir = scratch("domain");
        let session = Some(Session::begin(dir.path()));
        Self { bytes: bytes.iter(), dir, session, model: Model::default() }
    }

    fn step(&mut self, operation: u8) {
        match operation % 16 {
            0..=4 => self.tokenize(),
            5 | 6 => self.forget(),
            7 => self.detokenize(),
            8 => self.change(),
            9 => self.read(),
            10 => self.search(),
            11 => self.compare(),
            12 => self.rotate(),
            13 => self.rewrap(),
            14 => self.destroy(),
            _ => self.restart(),
        }
    }

    fn next(&mut self) -> usize {
        self.bytes.next().copied().unwrap_or_default().into()
    }

    fn session(&self) -> &Session {
        self.session.as_ref().expect("it is in service")
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Some token, and a tenant that asks for it: mostly its own.
    fn token(&mut self) -> Option<Owned> {
        let place = self.next();
        let (tenant, token) = self.model.token(place / 4)?;
        let stranger = TENANTS.into_iter().find(|other| *other != tenant);
        Some((if place % 4 == 3 { stranger.unwrap_or(tenant) } else { tenant }, token))
    }

    fn card(&mut self, tenant: &'static str) -> Card {
        let (what, who) = (self.next(), self.next());
        Card {
            tenant,
            pan: PANS[what % PANS.len()],
            template: TEMPLATES[what / 8 % TEMPLATES.len()],
            holder: HOLDERS.get(who % 4).copied(),
            metadata: metadata(who / 4),
            expires: what >= 128,
        }
    }

    /// Up to three cards at once.
    fn tokenize(&mut self) {
        let head = self.next();
        let tenant = TENANTS[head % TENANTS.len()];
        let cards: Vec<_> = (0..=head / 2 % 3).map(|_| self.card(tenant)).collect();
        let asked = cards.iter().map(new_card).collect();
        let Session { runtime, vault, .. } = self.session();
        let answers = runtime.block_on(vault.tokenize(tenant, asked));
        assert_eq!(answers.len(), cards.len());
        for (card, answer) in cards.into_iter().zip(answers) {
            let answer = answer.unwrap_or_else(|error| panic!("{error}"));
            let token = answer.token.to_string();
            assert_eq!(answer.masked.text(), masked(card.pan));
            assert_eq!(answer.template, card.template);
            if let Some(seen) = self.model.seen(&card) {
                assert_eq!((seen, false), (&*token, answer.created), "a card keeps its token");
                continue;
            }
            assert!(answer.created, "a card that is not there gets a token of its own");
            assert_eq!(answer.expires_at_s.is_some(), card.expires);
            assert!(self.model.cards.insert((tenant, token), card).is_none(), "a token is of one card");
        }
    }

    fn detokenize(&mut self) {
        let Some(owned) = self.token() else { return };
        let (tenant, token) = (owned.0, parsed(&owned.1));
        let Session { runtime, vault, .. } = self.session();
        let answer = runtime.block_on(vault.detokenize(tenant, vec![Ok(token)])).pop().expect("an answer");
        match self.model.cards.get(&owned) {
            Some(card) => {
                assert_eq!(answer.map(|card| card.pan.as_str().to_owned()), Ok(card.pan.to_owned()));
            }
            None => assert_eq!(answer.err(), Some(VaultError::UnknownToken)),
        }
    }

    fn forget(&mut self) {
        let Some(owned) = self.token() else { return };
        let (tenant, token) = (owned.0, parsed(&owned.1));
        let Session { runtime, vault, .. } = self.session();
        let answer = runtime.block_on(vault.forget(tenant, token));
        match self.model.cards.get(&owned) {
            Some(_) => {
                assert_eq!(answer, Ok(()));
                self.model.cards.remove(&owned);
                self.model.forgotten.push(owned);
            }
            None => assert_eq!(answer, Err(VaultError::UnknownToken)),
        }
    }

    fn change(&mut self) {
        let (Some(owned), what) = (self.token(), self.next()) else { return };
        let (tenant, token) = (owned.0, parsed(&owned.1));
        let expires_in_s = (what % 2 == 1).then_some(86_400);
        let change = RecordChange { metadata: Some(metadata(what / 2)), expires_in_s };
        let Session { runtime, vault, .. } = self.session();
        let answer = runtime.block_on(vault.change(tenant, token, change));
        match self.model.cards.get_mut(&owned) {
            Some(card) => {
                card.metadata = metadata(what / 2);
                card.expires |= expires_in_s.is_some();
                expect_view(&answer.unwrap_or_else(|error| panic!("{error}")), card);
            }
            None => assert_eq!(answer.err(), Some(VaultError::UnknownToken)),
        }
    }

    fn read(&mut self) {
        let Some(owned) = self.token() else { return };
        let (tenant, token) = (owned.0, parsed(&owned.1));
        let Session { runtime, vault, .. } = self.session();
        let answer = runtime.block_on(vault.record(tenant, token));
        match self.model.cards.get(&owned) {
            Some(card) => expect_view(&answer.unwrap_or_else(|error| panic!("{error}")), card),
            None => assert_eq!(answer.err(), Some(VaultError::UnknownToken)),
        }
    }

    /// By holder, by card or by both, page by page.
    fn search(&mut self) {
        let what = self.next();
        let tenant = TENANTS[what % TENANTS.len()];
        let pan = PANS.get(what / 8 % 8).copied();
        let holder = HOLDERS.get(what / 2 % 4).copied();
        let limit = 1 + what / 64;
        let number = pan.map(|pan| Pan::parse(pan).unwrap_or_else(|error| panic!("{error}")));
        let Session { runtime, vault, .. } = self.session();
        let (mut found, mut cursor) = (Vec::new(), None::<String>);
        for page in 0.. {
            assert!(page < MOST_PAGES, "a search ends");
            let search = Search { holder, pan: number.as_ref(), cursor: cursor.as_deref() };
            let answer = runtime.block_on(vault.search(tenant, search, limit));
            if pan.is_none() && holder.is_none() {
                assert!(matches!(answer, Err(VaultError::Request(_))));
                return;
            }
            let page = answer.unwrap_or_else(|error| panic!("{error}"));
            assert!(page.records.len() <= limit);
            found.extend(page.records.iter().map(|record| record.token.to_string()));
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        // A record that a rewrap moves from one key to the other meanwhile is found under both, or comes late.
        let found_all = self.model.found(tenant, holder, pan);
        if !vault.rewrap_report().expect("the store is read").running {
            found.sort();
            found.dedup();
            assert_eq!(found, found_all);
        }
    }

    fn compare(&mut self) {
        let (Some(owned), what) = (self.token(), self.next()) else { return };
        let (tenant, token) = (owned.0, parsed(&owned.1));
        let pan = PANS[what % PANS.len()];
        let Session { runtime, vault, .. } = self.session();
        let number = Pan::parse(pan).unwrap_or_else(|error| panic!("{error}"));
        let answer = runtime.block_on(vault.compare(tenant, token, &number));
        match self.model.cards.get(&owned) {
            Some(card) => assert_eq!(answer, Ok(card.pan == pan)),
            None => assert_eq!(answer, Err(VaultError::UnknownToken)),
        }
    }

    fn rotate(&mut self) {
        let purpose = PURPOSES[self.next() % PURPOSES.len()];
        let Session { runtime, vault, .. } = self.session();
        let name = runtime.block_on(vault.keys().rotate(purpose)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(name.purpose, purpose);
    }

    /// With the end of it or without.
    fn rewrap(&mut self) {
        let waits = !self.next().is_multiple_of(4);
        let session = self.session();
        session.runtime.block_on(session.vault.start_rewrap()).unwrap_or_else(|error| panic!("{error}"));
        if waits {
            session.settle();
            let report = session.vault.rewrap_report().expect("the store is read");
            assert_eq!((report.left, report.failed), (0, 0));
        }
    }

    /// Some retired key: one that no record depends on goes, any other stays.
    fn destroy(&mut self) {
        let place = self.next();
        let Session { runtime, vault, store, .. } = self.session();
        let keys = store.keys().expect("the store is read");
        let retired: Vec<_> = keys.iter().filter(|(_, key)| key.state == KeyState::Retired).collect();
        let Some((name, _)) = (!retired.is_empty()).then(|| retired[place % retired.len()]) else { return };
        let running = vault.rewrap_report().expect("the store is read").running;
        let name = KeyName::parse(name).expect("a key's name");
        let held = keys.iter().any(|(it, key)| *it == name.to_string() && key.records > 0);
        let answer = runtime.block_on(vault.keys().destroy(name));
        match answer {
            Ok(()) => assert!(running || !held, "a key goes that records depend on"),
            Err(VaultError::KeyInUse(_)) => assert!(held, "a key stays that nothing depends on"),
            Err(error) => panic!("{error}"),
        }
    }

    fn restart(&mut self) {
        if let Some(session) = self.session.take() {
            session.end();
        }
        self.session = Some(Session::resume(self.dir()));
    }

    /// Looks at all there is, and leaves the token as it was found.
    fn end(mut self) {
        self.session().settle();
        let session = self.session.take().expect("it is in service");
        let Session { runtime, vault, store } = &session;
        for ((tenant, token), card) in &self.model.cards {
            let answer = runtime.block_on(vault.detokenize(tenant, vec![Ok(parsed(token))])).pop();
            let pan = answer.expect("an answer").map(|card| card.pan.as_str().to_owned());
            assert_eq!(pan, Ok(card.pan.to_owned()));
        }
        let found = runtime.block_on(inspect(&world().hsm, store)).unwrap_or_else(|error| panic!("{error}"));
        assert!(found.wrong.is_empty(), "{:?}", found.wrong);
        assert_eq!(found.records, u64::try_from(self.model.cards.len()).unwrap_or(u64::MAX));
        runtime.block_on(world().tidy_token(store));
        session.end();
    }
}

fn expect_view(view: &vaultd::vault::RecordView, card: &Card) {
    assert_eq!(view.masked.text(), masked(card.pan));
    assert_eq!(view.template, card.template);
    assert_eq!(view.holder.as_ref().map(Sensitive::expose), card.holder);
    assert_eq!(view.metadata, card.metadata);
    assert_eq!(view.expires_at_s.is_some(), card.expires);
}

fn new_card(card: &Card) -> NewCard {
    NewCard {
        pan: Pan::parse(card.pan).unwrap_or_else(|error| panic!("{error}")),
        template: Some(card.template.to_owned()),
        holder: card.holder.map(Sensitive::from),
        expiry: None,
        expires_in_s: card.expires.then_some(Duration::from_hours(24).as_secs()),
        metadata: card.metadata.clone(),
    }
}

fn metadata(number: usize) -> Metadata {
    let value = MetadataValue::Number(number.into());
    Metadata(if number.is_multiple_of(8) { [].into() } else { [("n".to_owned(), value)].into() })
}

fn parsed(token: &str) -> Token {
    Token::parse(token).unwrap_or_else(|error| panic!("{error}"))
}

/// First six, last four.
fn masked(pan: &str) -> String {
    format!("{}{}{}", &pan[..6], "*".repeat(pan.len() - 10), &pan[pan.len() - 4..])
}
