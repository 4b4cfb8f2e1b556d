//! The store by itself: what its writer decides, and that nothing stays behind.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use futures_util::future::join_all;
use proptest::prelude::*;
use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vaultd::store::{
    BlindKey, Header, Inserted, KeyMove, KeyMoved, KeyState, Lookup, NewRecord, Record, Replaced, SealedPart,
    Store, StoredKey, TokenKey,
};

const TENANT: &str = "shop";
const CACHE_BYTES: usize = 1 << 20;
const QUEUE: usize = 64;
const NOW_S: u64 = 1_000;

fn new_store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), [7; 16], CACHE_BYTES, QUEUE).unwrap();
    for name in ["record-v1", "fingerprint-v1", "holder-v1"] {
        store.put_key(name, &StoredKey::new(KeyState::Active, 1, Vec::new())).unwrap();
    }
    (dir, store)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn token(number: u8) -> TokenKey {
    TokenKey::new(&[number; 16]).unwrap()
}

/// A record of card number `card`; `mark` tells records of one card apart.
fn record(card: u8, mark: u8, expires_at_s: Option<u64>) -> Record {
    Record {
        header: Header {
            key_version: 1,
            fingerprint_version: 1,
            fingerprint: [card; 16],
            reusable: true,
            bin: 411_111,
            last4: 1_111,
            pan_digits: 16,
            created_at_ms: 1,
            expires_at_s,
            template: "default".to_owned(),
            holder: None,
        },
        private: None,
        card: SealedPart { nonce: [mark; 12], ciphertext: vec![mark; 40] },
    }
}

/// The record with the holder that `mark` names, if it names one.
fn held(mut record: Record, mark: u8) -> Record {
    let holder = mark % 3;
    record.header.holder = (holder > 0).then_some(BlindKey { version: 1, hash: [holder; 16] });
    record
}

async fn insert(store: &Store, token: TokenKey, record: Record, now_s: u64) -> Inserted {
    store
        .insert(TENANT, vec![NewRecord { token, record, older: Vec::new() }], now_s)
        .await
        .unwrap()
        .pop()
        .unwrap()
}

fn get(store: &Store, token: TokenKey) -> Option<Record> {
    store.get(TENANT, &[token]).unwrap().pop().unwrap().unwrap()
}

/// Rows in the tables of records, fingerprints, ends and holders, read from the file of a closed store.
fn rows(dir: &Path) -> [u64; 4] {
    type Bytes = &'static [u8];
    const RECORDS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("records");
    const FINGERPRINTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("fingerprints");
    const EXPIRIES: TableDefinition<'_, Bytes, ()> = TableDefinition::new("expiries");
    const HOLDERS: TableDefinition<'_, Bytes, ()> = TableDefinition::new("holders");
    let database = Database::open(dir.join("vault.redb")).unwrap();
    let snapshot = database.begin_read().unwrap();
    [
        snapshot.open_table(RECORDS).unwrap().len().unwrap(),
        snapshot.open_table(FINGERPRINTS).unwrap().len().unwrap(),
        snapshot.open_table(EXPIRIES).unwrap().len().unwrap(),
        snapshot.open_table(HOLDERS).unwrap().len().unwrap(),
    ]
}

#[test]
fn callers_racing_with_one_card_get_one_token() {
    let (_dir, store) = new_store();
    let inserted =
        runtime().block_on(join_all((1..=32).map(|n| insert(&store, token(n), record(1, n, None), NOW_S))));
    let created = (1..=32).zip(&inserted).filter(|(_, outcome)| **outcome == Inserted::Created);
    let created: Vec<u8> = created.map(|(n, _)| n).collect();
    let [winner] = created.as_slice() else { panic!("{created:?} were created") };
    let seen = Inserted::Seen(token(*winner), record(1, *winner, None));
    assert_eq!(inserted.iter().filter(|outcome| **outcome == seen).count(), 31);
}

#[test]
fn a_taken_token_is_not_given_to_another_card() {
    let (dir, store) = new_store();
    runtime().block_on(async {
        assert_eq!(insert(&store, token(1), record(1, 1, None), NOW_S).await, Inserted::Created);
        assert_eq!(insert(&store, token(1), record(2, 2, None), NOW_S).await, Inserted::TokenTaken);
        assert_eq!(get(&store, token(1)), Some(record(1, 1, None)), "the first card kept its record");
    });
    store.close();
    drop(store);
    assert_eq!(rows(dir.path()), [1, 1, 0, 0], "the refused card left nothing");
}

#[test]
fn a_card_whose_token_has_ended_gets_another() {
    let (_dir, store) = new_store();
    runtime().block_on(async {
        insert(&store, token(1), record(1, 1, Some(NOW_S)), NOW_S - 1).await;
        let early = insert(&store, token(2), record(1, 2, None), NOW_S - 1).await;
        assert_eq!(early, Inserted::Seen(token(1), record(1, 1, Some(NOW_S))));
        assert_eq!(insert(&store, token(2), record(1, 2, None), NOW_S).await, Inserted::Created);
        assert_eq!(get(&store, token(1)), Some(record(1, 1, Some(NOW_S))), "it stays until it is swept");
        assert_eq!(
            insert(&store, token(3), record(1, 3, None), NOW_S - 1).await,
            Inserted::Seen(token(2), record(1, 2, None)),
            "the later one is the card's, whatever the clock says next"
        );
        assert_eq!(store.sweep(NOW_S + 1, 10).await, Ok(1));
        assert_eq!(get(&store, token(1)), None);
        let again = insert(&store, token(3), record(1, 3, None), NOW_S).await;
        assert_eq!(again, Inserted::Seen(token(2), record(1, 2, None)));
    });
}

#[test]
fn tokens_that_have_ended_are_found_by_a_search_until_they_are_swept() {
    let (_dir, store) = new_store();
    let card = Lookup::Card(vec![BlindKey { version: 1, hash: [1; 16] }]);
    let found = |store: &Store| {
        let hits = store.search(TENANT, &card, &[], 10).unwrap();
        hits.into_iter().map(|hit| hit.token).collect::<BTreeSet<_>>()
    };
    runtime().block_on(async {
        insert(&store, token(1), record(1, 1, Some(NOW_S)), NOW_S - 1).await;
        insert(&store, token(2), record(1, 2, None), NOW_S).await;
        assert_eq!(found(&store), [1, 2].map(token).into());
        store.remove(TENANT, token(2)).await.unwrap();
        assert_eq!(found(&store), [1].map(token).into());
        store.sweep(NOW_S + 1, 10).await.unwrap();
        assert_eq!(found(&store), BTreeSet::new());
    });
}

#[test]
fn a_template_without_reuse_gives_a_card_many_tokens() {
    let (_dir, store) = new_store();
    let single = |n| {
        let mut record = record(1, n, None);
        record.header.reusable = false;
        record
    };
    runtime().block_on(async {
        for n in 1..=3 {
            assert_eq!(insert(&store, token(n), single(n), NOW_S).await, Inserted::Created);
        }
    });
}

#[test]
fn a_change_is_made_to_what_was_read_or_not_at_all() {
    let (_dir, store) = new_store();
    let (old, new) = (record(1, 1, Some(NOW_S)), record(1, 2, Some(NOW_S + 9)));
    runtime().block_on(async {
        insert(&store, token(1), old.clone(), 0).await;
        let replace = |old: &Record, new: &Record| store.replace(TENANT, token(1), old.clone(), new.clone());
        assert_eq!(replace(&new, &old).await, Ok(Replaced::Changed));
        assert_eq!(replace(&old, &new).await, Ok(Replaced::Done));
        assert_eq!(store.sweep(NOW_S + 1, 10).await, Ok(0), "its old end is forgotten");
        assert_eq!(get(&store, token(1)), Some(new.clone()));
        assert_eq!(store.sweep(NOW_S + 10, 10).await, Ok(1));
        assert_eq!(replace(&new, &old).await, Ok(Replaced::Gone));
    });
}

#[test]
fn a_token_that_has_made_room_for_another_is_not_brought_back() {
    let (_dir, store) = new_store();
    let ended = record(1, 1, Some(NOW_S));
    let back = |end_s| Record { header: record(1, 1, end_s).header, ..record(1, 3, None) };
    runtime().block_on(async {
        insert(&store, token(1), ended.clone(), NOW_S - 1).await;
        assert_eq!(insert(&store, token(2), record(1, 2, None), NOW_S).await, Inserted::Created);
        let replace = |old: &Record, new: &Record| store.replace(TENANT, token(1), old.clone(), new.clone());
        for end_s in [None, Some(NOW_S + 600)] {
            assert_eq!(replace(&ended, &back(end_s)).await, Ok(Replaced::Gone));
        }
        assert_eq!(get(&store, token(1)), Some(ended.clone()));
        // So does a rewrap.
        assert_eq!(replace(&ended, &back(Some(NOW_S))).await, Ok(Replaced::Done));
        store.remove(TENANT, token(2)).await.unwrap();
        assert_eq!(
            replace(&back(Some(NOW_S)), &back(None)).await,
            Ok(Replaced::Gone),
            "nor when that has gone"
        );
    });
}

#[test]
fn another_tenant_sees_nothing() {
    let (_dir, store) = new_store();
    runtime().block_on(async {
        insert(&store, token(1), record(1, 1, None), NOW_S).await;
        assert_eq!(store.get("other", &[token(1)]).unwrap(), [Ok(None)]);
        assert_eq!(store.remove("other", token(1)).await, Ok(false));
        let theirs = vec![NewRecord { token: token(1), record: record(1, 2, None), older: Vec::new() }];
        assert_eq!(store.insert("other", theirs, NOW_S).await, Ok(vec![Inserted::Created]));
        assert_eq!(get(&store, token(1)), Some(record(1, 1, None)));
    });
}

#[test]
fn what_cannot_be_stored_changes_nothing() {
    let (_dir, store) = new_store();
    let mut large = record(1, 2, None);
    large.private = Some(SealedPart { nonce: [0; 12], ciphertext: vec![0; 70_000] });
    runtime().block_on(async {
        insert(&store, token(1), record(1, 1, None), NOW_S).await;
        assert!(store.replace(TENANT, token(1), record(1, 1, None), large.clone()).await.is_err());
        let items = [(token(2), record(2, 1, None)), (token(3), large)].map(|(token, record)| NewRecord {
            token,
            record,
            older: Vec::new(),
        });
        assert!(store.insert(TENANT, items.into(), NOW_S).await.is_err());
    });
    assert_eq!(get(&store, token(1)), Some(record(1, 1, None)));
    assert_eq!(get(&store, token(2)), None, "all or nothing");
}

/// Writes over the records of these tokens, in a store that is closed.
fn damage(dir: &Path, tokens: &[u8]) {
    const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
    let transaction = Database::open(dir.join("vault.redb")).unwrap().begin_write().unwrap();
    for number in tokens {
        let key = [[0, 0, 0, 1].as_slice(), token(*number).as_bytes()].concat();
        transaction.open_table(RECORDS).unwrap().insert(key.as_slice(), [7].as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn a_damaged_record_stands_in_nobodys_way() {
    let (dir, store) = new_store();
    let runtime = runtime();
    runtime.block_on(async {
        insert(&store, token(1), record(1, 1, Some(NOW_S)), 0).await;
        insert(&store, token(2), record(2, 2, Some(NOW_S + 1)), 0).await;
        insert(&store, token(3), record(3, 3, None), 0).await;
    });
    store.close();
    drop(store);
    damage(dir.path(), &[1, 3]);
    let store = Store::open(dir.path(), CACHE_BYTES, QUEUE).unwrap();
    runtime.block_on(async {
        let new = [(token(4), record(3, 4, None)), (token(5), record(5, 5, None))]
            .map(|(token, record)| NewRecord { token, record, older: Vec::new() });
        let inserted = store.insert(TENANT, new.into(), NOW_S).await.unwrap();
        assert!(matches!(inserted.as_slice(), [Inserted::Damaged(_), Inserted::Created]), "{inserted:?}");
        assert_eq!(store.sweep(NOW_S + 2, 10).await, Ok(2), "the sweep goes past it");
        assert_eq!(store.sweep(NOW_S + 2, 10).await, Ok(0));
        assert_eq!(get(&store, token(2)), None);
        assert_eq!(store.remove(TENANT, token(3)).await, Ok(true), "it can be deleted");
        assert_eq!(get(&store, token(5)), Some(record(5, 5, None)));
    });
}

#[test]
fn the_end_of_a_record_that_was_removed_ends_no_other() {
    let (dir, store) = new_store();
    let runtime = runtime();
    runtime.block_on(insert(&store, token(1), record(1, 1, Some(NOW_S)), 0));
    store.close();
    drop(store);
    // So that whoever removes it cannot know its end.
    damage(dir.path(), &[1]);
    let store = Store::open(dir.path(), CACHE_BYTES, QUEUE).unwrap();
    let another = record(2, 2, Some(NOW_S + 1_000));
    runtime.block_on(async {
        assert_eq!(store.remove(TENANT, token(1)).await, Ok(true));
        insert(&store, token(1), another.clone(), NOW_S).await;
        assert_eq!(store.sweep(NOW_S + 2, 10).await, Ok(1), "the row that was left");
    });
    assert_eq!(get(&store, token(1)), Some(another));
}

/// What is done to the store and to the model in turn.
#[derive(Clone, Debug)]
enum Step {
    Insert { token: u8, card: u8, mark: u8, expires_at_s: Option<u64> },
    Replace { token: u8, mark: u8, expires_at_s: Option<u64> },
    Remove { token: u8 },
    Sweep { now_s: u64 },
    Reopen,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let end = || proptest::option::of(NOW_S - 3..NOW_S + 3);
    prop_oneof![
        6 => (0_u8..8, 0_u8..5, any::<u8>(), end())
            .prop_map(|(token, card, mark, expires_at_s)| Step::Insert { token, card, mark, expires_at_s }),
        3 => (0_u8..8, any::<u8>(), end())
            .prop_map(|(token, mark, expires_at_s)| Step::Replace { token, mark, expires_at_s }),
        2 => (0_u8..8).prop_map(|token| Step::Remove { token }),
        1 => (NOW_S - 3..NOW_S + 3).prop_map(|now_s| Step::Sweep { now_s }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
    ]
}

/// The store in some lines: a record per token, and at most one token that a card is given again.
#[derive(Default)]
struct Model {
    records: BTreeMap<TokenKey, Record>,
    cards: BTreeMap<[u8; 16], TokenKey>,
}

impl Model {
    fn insert(&mut self, key: TokenKey, new: &Record) -> Inserted {
        if self.records.contains_key(&key) {
            return Inserted::TokenTaken;
        }
        if let Some(seen) = self.cards.get(&new.header.fingerprint) {
            let old = &self.records[seen];
            if !old.header.expired(NOW_S) {
                return Inserted::Seen(*seen, old.clone());
            }
        }
        self.cards.insert(new.header.fingerprint, key);
        self.records.insert(key, new.clone());
        Inserted::Created
    }

    fn replace(&mut self, key: TokenKey, new: Record) -> Replaced {
        let is_aside = self.cards.get(&new.header.fingerprint) != Some(&key);
        let old = self.records.get_mut(&key).unwrap();
        if is_aside && old.header.expires_at_s != new.header.expires_at_s {
            return Replaced::Gone;
        }
        *old = new;
        Replaced::Done
    }

    fn retain(&mut self, keep: impl Fn(&TokenKey, &Record) -> bool) {
        self.records.retain(|key, record| keep(key, record));
        self.cards.retain(|_, key| self.records.contains_key(key));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_does_what_a_map_would(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut dir, mut store) = new_store();
        let mut model = Model::default();
        let runtime = runtime();
        for step in steps {
            match step {
                Step::Insert { token: n, card, mark, expires_at_s } => {
                    let new = held(record(card, mark, expires_at_s), mark);
                    let expected = model.insert(token(n), &new);
                    prop_assert_eq!(runtime.block_on(insert(&store, token(n), new, NOW_S)), expected);
                }
                Step::Replace { token: n, mark, expires_at_s } => {
                    let Some(old) = model.records.get(&token(n)) else { continue };
                    let new = held(record(old.header.fingerprint[0], mark, expires_at_s), mark);
                    let replaced = runtime.block_on(store.replace(TENANT, token(n), old.clone(), new.clone()));
                    prop_assert_eq!(replaced, Ok(model.replace(token(n), new)));
                }
                Step::Remove { token: n } => {
                    let was_there = model.records.contains_key(&token(n));
                    model.retain(|key, _| *key != token(n));
                    prop_assert_eq!(runtime.block_on(store.remove(TENANT, token(n))), Ok(was_there));
                }
                Step::Sweep { now_s } => {
                    let before = model.records.len();
                    model.retain(|_, record| record.header.expires_at_s.is_none_or(|end_s| end_s >= now_s));
                    let swept = before - model.records.len();
                    prop_assert_eq!(runtime.block_on(store.sweep(now_s, 100)), Ok(swept));
                }
                Step::Reopen => {
                    store.close();
                    drop(store);
                    store = Store::open(dir.path(), CACHE_BYTES, QUEUE).unwrap();
                }
                Step::Kill => {
                    // What the file holds while the store is open is what a killed process leaves.
                    let left = tempfile::tempdir().unwrap();
                    std::fs::copy(Store::file(dir.path()), Store::file(left.path())).unwrap();
                    store.close();
                    store = Store::open(left.path(), CACHE_BYTES, QUEUE).unwrap();
                    dir = left;
                }
            }
            for n in 0..8 {
                prop_assert_eq!(get(&store, token(n)), model.records.get(&token(n)).cloned());
            }
        }
        store.close();
        drop(store);
        let ends = model.records.values().filter(|record| record.header.expires_at_s.is_some()).count();
        let held = model.records.values().filter(|record| record.header.holder.is_some()).count();
        let expected = [model.records.len(), model.records.len(), ends, held].map(|count| u64::try_from(count).unwrap());
        prop_assert_eq!(rows(dir.path()), expected, "rows that nothing refers to");
    }

    #[test]
    fn pages_of_any_size_give_each_record_once(
        versions in proptest::collection::vec(1_u32..=2, 1..30),
        sizes in proptest::collection::vec(1_usize..7, 1..8),
        removed: prop::sample::Index,
    ) {
        let (_dir, store) = new_store();
        let runtime = runtime();
        let holder = |version| BlindKey { version, hash: [9; 16] };
        let tokens: Vec<_> = (0..).map(token).take(versions.len()).collect();
        let moves = [KeyMove::Begin, KeyMove::Activate { check_value: Vec::new(), needed_until_s: 0 }];
        // Records stay with a retired key until they are rewrapped.
        for version in [1, 2] {
            for (card, _) in (0..).zip(&versions).filter(|(_, its)| **its == version) {
                let mut new = record(card, 1, None);
                new.header.holder = Some(holder(version));
                prop_assert_eq!(runtime.block_on(insert(&store, token(card), new, NOW_S)), Inserted::Created);
            }
            for step in moves.iter().filter(|_| version == 1) {
                prop_assert_eq!(runtime.block_on(store.move_key("holder-v2", step.clone(), 1)), Ok(KeyMoved::Done));
            }
        }
        let lookup = Lookup::Holder(vec![holder(2), holder(1)]);
        let gone = tokens[removed.index(tokens.len())];
        let (mut found, mut position) = (Vec::new(), Vec::new());
        for size in sizes.iter().cycle() {
            let hits = store.search(TENANT, &lookup, &position, *size).unwrap();
            prop_assert!(hits.len() <= *size);
            let Some(last) = hits.last() else { break };
            position = last.position.clone();
            found.extend(hits.into_iter().map(|hit| hit.token));
            // Somebody removes a record between two pages.
            runtime.block_on(store.remove(TENANT, gone)).unwrap();
        }
        found.retain(|token| *token != gone);
        let expected: Vec<_> = tokens.into_iter().filter(|token| *token != gone).collect();
        prop_assert_eq!(found, expected);
    }
}
