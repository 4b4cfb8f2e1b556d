//! What the store knows of keys: states, census, and which records it takes.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "tests")]

use redb::{Database, TableDefinition};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vaultd::store::{
    BlindKey, FingerprintKey, Header, Inserted, KeyMove, KeyMoved, KeyState, NewRecord, Record, Replaced,
    RewrapJob, Rewrapped, SealedPart, Store, StoredKey, TokenKey,
};

const TENANT: &str = "shop";
const CACHE_BYTES: usize = 1 << 20;
const QUEUE: usize = 64;

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

/// A record of card number `card` under keys of `version`.
fn record(card: u8, version: u32) -> Record {
    let hash = [card + 16 * u8::try_from(version).unwrap(); 16];
    Record {
        header: Header {
            key_version: version,
            fingerprint_version: version,
            fingerprint: hash,
            reusable: true,
            bin: 411_111,
            last4: 1_111,
            pan_digits: 16,
            created_at_ms: 1,
            expires_at_s: None,
            template: "default".to_owned(),
            holder: Some(BlindKey { version, hash }),
        },
        private: None,
        card: SealedPart { nonce: [0; 12], ciphertext: vec![0; 40] },
    }
}

fn card_key(record: &Record) -> FingerprintKey {
    let Header { fingerprint_version: version, fingerprint, template, .. } = record.header.clone();
    FingerprintKey { version, fingerprint, template }
}

async fn insert(store: &Store, number: u8, record: Record, older: Vec<FingerprintKey>) -> Inserted {
    let new = NewRecord { token: token(number), record, older };
    store.insert(TENANT, vec![new], 1).await.unwrap().pop().unwrap()
}

async fn rotate(store: &Store, purpose: &str, version: u32) {
    let name = format!("{purpose}-v{version}");
    assert_eq!(store.move_key(&name, KeyMove::Begin, 2).await, Ok(KeyMoved::Done));
    let activate = KeyMove::Activate { check_value: vec![1], needed_until_s: 0 };
    assert_eq!(store.move_key(&name, activate, 3).await, Ok(KeyMoved::Done));
}

fn census(store: &Store) -> Vec<(String, KeyState, u64)> {
    store.keys().unwrap().into_iter().map(|(name, key)| (name, key.state, key.records)).collect()
}

#[test]
fn the_writer_takes_records_of_active_keys_only() {
    let (_dir, store) = new_store();
    runtime().block_on(async {
        assert_eq!(insert(&store, 1, record(1, 1), Vec::new()).await, Inserted::Created);
        for purpose in ["record", "fingerprint", "holder"] {
            rotate(&store, purpose, 2).await;
        }
        assert_eq!(insert(&store, 2, record(2, 1), Vec::new()).await, Inserted::Stale, "of retired keys");
        assert_eq!(insert(&store, 2, record(2, 3), Vec::new()).await, Inserted::Stale, "of keys to come");
        assert_eq!(
            insert(&store, 2, record(2, 2), Vec::new()).await,
            Inserted::Stale,
            "not looked for under the retired key, which holds a record"
        );
        let older = vec![card_key(&record(2, 1))];
        assert_eq!(insert(&store, 2, record(2, 2), older).await, Inserted::Created);
        let changed = store.replace(TENANT, token(1), record(1, 1), record(1, 1)).await;
        assert_eq!(
            changed,
            Ok(Replaced::Stale),
            "a record that is sealed anew is sealed with the active key"
        );
        let mut resealed = record(1, 1);
        resealed.header.key_version = 2;
        let changed = store.replace(TENANT, token(1), record(1, 1), resealed).await;
        assert_eq!(changed, Ok(Replaced::Done), "its fingerprint may stay");
    });
}

#[test]
fn a_card_keeps_its_token_from_one_fingerprint_key_to_the_next() {
    let (_dir, store) = new_store();
    runtime().block_on(async {
        insert(&store, 1, record(1, 1), Vec::new()).await;
        for purpose in ["record", "fingerprint", "holder"] {
            rotate(&store, purpose, 2).await;
        }
        let older = vec![card_key(&record(1, 1))];
        let seen = Inserted::Seen(token(1), record(1, 1));
        assert_eq!(insert(&store, 2, record(1, 2), older.clone()).await, seen);
        let both = [card_key(&record(1, 2)), card_key(&record(1, 1))];
        let found = store.find(TENANT, &[&both]).unwrap().pop().unwrap();
        assert_eq!(found, Ok(Some((token(1), record(1, 1)))));

        let rewrapped =
            Rewrapped { tenant: TENANT.to_owned(), token: token(1), old: record(1, 1), new: record(1, 2) };
        let (replaced, job) = store.rewrap(vec![rewrapped], RewrapJob::default()).await.unwrap();
        assert_eq!((replaced.as_slice(), job.done), ([Replaced::Done].as_slice(), 1));
        assert_eq!(store.rewrap_job().unwrap(), Some(job), "its place is on disk");
        let seen = Inserted::Seen(token(1), record(1, 2));
        assert_eq!(insert(&store, 2, record(1, 2), older).await, seen);
        assert_eq!(
            insert(&store, 2, record(1, 2), Vec::new()).await,
            seen,
            "the old key holds nothing any more"
        );
    });
}

#[test]
fn a_token_that_made_room_stays_aside_under_the_next_fingerprint_key() {
    for is_swept in [false, true] {
        let (_dir, store) = new_store();
        let ended = |version| {
            let mut record = record(1, version);
            record.header.expires_at_s = Some(1);
            record
        };
        runtime().block_on(async {
            let early = NewRecord { token: token(1), record: ended(1), older: Vec::new() };
            assert_eq!(store.insert(TENANT, vec![early], 0).await, Ok(vec![Inserted::Created]));
            assert_eq!(insert(&store, 2, record(1, 1), Vec::new()).await, Inserted::Created);
            for purpose in ["record", "fingerprint", "holder"] {
                rotate(&store, purpose, 2).await;
            }
            let moved = store.replace(TENANT, token(1), ended(1), ended(2)).await;
            assert_eq!(moved, Ok(Replaced::Done));
            let moved = store.replace(TENANT, token(2), record(1, 1), record(1, 2)).await;
            assert_eq!(moved, Ok(Replaced::Done));
            if is_swept {
                assert_eq!(store.sweep(2, 10).await, Ok(1));
            }
            let again = insert(&store, 3, record(1, 2), vec![card_key(&record(1, 1))]).await;
            assert_eq!(again, Inserted::Seen(token(2), record(1, 2)), "swept: {is_swept}");
        });
    }
}

#[test]
fn a_key_is_destroyed_when_nothing_depends_on_it() {
    let (_dir, store) = new_store();
    runtime().block_on(async {
        insert(&store, 1, record(1, 1), Vec::new()).await;
        let destroy = |name| store.move_key(name, KeyMove::Destroy, 4);
        assert_eq!(destroy("record-v9").await, Ok(KeyMoved::Impossible(None)));
        assert_eq!(destroy("record-v1").await, Ok(KeyMoved::Impossible(Some(KeyState::Active))));
        rotate(&store, "record", 2).await;
        assert_eq!(destroy("record-v1").await, Ok(KeyMoved::HoldsRecords(1)));
        assert!(store.remove(TENANT, token(1)).await.unwrap());
        assert_eq!(destroy("record-v1").await, Ok(KeyMoved::Done));
        assert_eq!(destroy("record-v1").await, Ok(KeyMoved::Impossible(Some(KeyState::Destroyed))));

        assert_eq!(store.move_key("jwt-v1", KeyMove::Begin, 1).await, Ok(KeyMoved::Done));
        let activate = |needed_until_s| KeyMove::Activate { check_value: Vec::new(), needed_until_s };
        assert_eq!(store.move_key("jwt-v1", activate(0), 1).await, Ok(KeyMoved::Done));
        assert_eq!(store.move_key("jwt-v2", KeyMove::Begin, 1).await, Ok(KeyMoved::Done));
        assert_eq!(store.move_key("jwt-v2", activate(9), 1).await, Ok(KeyMoved::Done));
        assert_eq!(destroy("jwt-v1").await, Ok(KeyMoved::NeededUntil(9)));
        assert_eq!(store.move_key("jwt-v1", KeyMove::Destroy, 9_000).await, Ok(KeyMoved::Done));
        assert_eq!(store.move_key("jwt-v3", KeyMove::Begin, 1).await, Ok(KeyMoved::Done));
        assert_eq!(store.move_key("jwt-v3", KeyMove::Abandon, 1).await, Ok(KeyMoved::Done));
        assert!(census(&store).iter().all(|(name, _, _)| name != "jwt-v3"));
    });
}

#[test]
fn a_store_of_schema_2_is_brought_forward() {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");
    let (dir, store) = new_store();
    runtime().block_on(async {
        insert(&store, 1, record(1, 1), Vec::new()).await;
        insert(&store, 2, record(2, 1), Vec::new()).await;
    });
    store.close();
    drop(store);
    {
        let transaction = Database::open(dir.path().join("vault.redb")).unwrap().begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("schema", 2_u32.to_be_bytes().as_slice()).unwrap();
        let mut keys = transaction.open_table(KEYS).unwrap();
        for (name, made_at) in
            [("record-v1", 5_u64), ("record-v2", 6), ("fingerprint-v1", 5), ("holder-v1", 5)]
        {
            let row = [made_at.to_be_bytes().as_slice(), &77_u64.to_be_bytes(), b"check value"].concat();
            keys.insert(name, row.as_slice()).unwrap();
        }
        drop(keys);
        transaction.commit().unwrap();
    }
    let store = Store::open(dir.path(), CACHE_BYTES, QUEUE).unwrap();
    let wanted = [
        ("fingerprint-v1", KeyState::Active, 2),
        ("holder-v1", KeyState::Active, 2),
        ("record-v1", KeyState::Retired, 2),
        ("record-v2", KeyState::Active, 0),
    ];
    assert_eq!(census(&store), wanted.map(|(name, state, records)| (name.to_owned(), state, records)));
    let keys = store.keys().unwrap();
    let (_, key) = keys.iter().find(|(name, _)| name == "record-v1").unwrap();
    assert_eq!((key.created_at_ms, key.retired_at_ms, key.reserved_seals), (5, Some(6), 77));
    assert_eq!(key.check_value, b"check value");
}
