//! A store that is read out while others write to it, and made anew from what was read.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use futures_util::future::join_all;
use redb::{Database, TableDefinition};
use tokio::runtime::Runtime;
use vaultd::store::{
    BlindKey, Header, Importer, KeyState, NewRecord, Record, Row, SealedPart, Store, StoreError, StoredKey,
    StoredLock, TokenKey, Use, UseKind, WindowRows,
};

const CACHE_BYTES: usize = 1 << 20;
const QUEUE: usize = 64;

fn new_store(dir: &Path) -> Store {
    let store = Store::create(dir, [7; 16], CACHE_BYTES, QUEUE).unwrap();
    for name in ["record-v1", "fingerprint-v1", "holder-v1"] {
        store.put_key(name, &StoredKey::new(KeyState::Active, 1, b"check".to_vec())).unwrap();
    }
    store
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn record(number: u32) -> NewRecord {
    let mut hash = [0; 16];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    let record = Record {
        header: Header {
            key_version: 1,
            fingerprint_version: 1,
            fingerprint: hash,
            reusable: true,
            bin: 411_111,
            last4: 1_111,
            pan_digits: 16,
            created_at_ms: 1,
            expires_at_s: number.is_multiple_of(2).then_some(1_900_000_000),
            template: "default".to_owned(),
            holder: number.is_multiple_of(3).then_some(BlindKey { version: 1, hash }),
        },
        private: None,
        card: SealedPart { nonce: [1; 12], ciphertext: vec![2; 40] },
    };
    NewRecord { token: TokenKey::new(&hash).unwrap(), record, older: Vec::new() }
}

async fn fill(store: &Store, tenant: &str, numbers: std::ops::Range<u32>) {
    let numbers: Vec<_> = numbers.collect();
    for some in numbers.chunks(50) {
        join_all(some.iter().map(|number| store.insert(tenant, vec![record(*number)], 1))).await;
    }
}

/// Rows in every table.
async fn fill_all(store: &Store) {
    fill(store, "shop", 0..500).await;
    fill(store, "other", 0..500).await;
    for byte in 0..20 {
        for kind in UseKind::ALL {
            store.use_up(kind, [byte; 32], 1_900_000_000 + u64::from(byte), 1, 100).await.unwrap();
        }
    }
    let lock = StoredLock {
        issuer: "an issuer".to_owned(),
        subject: "a subject".to_owned(),
        tenant: "shop".to_owned(),
        reason: "took too many".to_owned(),
        locked_at_ms: 5,
    };
    store.lock(lock).await.unwrap();
    let rows =
        WindowRows { put: vec![(vec![1; 26], vec![0; 9]), (vec![2; 26], vec![1; 160])], remove: vec![] };
    store.change_windows(rows).await.unwrap();
    store.put_note("a note", b"text".to_vec()).await.unwrap();
}

fn all(store: &Store) -> Vec<Row> {
    store.snapshot().unwrap().rows().collect::<Result<_, _>>().unwrap()
}

fn made_of(dir: &Path, rows: &[Row]) -> Result<(), StoreError> {
    let mut importer = Importer::create(dir, CACHE_BYTES).unwrap();
    for row in rows {
        importer.add(row.clone())?;
    }
    importer.finish()
}

#[test]
fn a_copy_is_the_same_store() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = new_store(from.path());
    runtime().block_on(fill_all(&store));
    let (rows, counts) = (all(&store), store.snapshot().unwrap().counts().clone());
    assert!(counts.values().all(|count| *count > 0), "a table is empty: {counts:?}");
    assert_eq!(counts.values().sum::<u64>(), u64::try_from(rows.len()).unwrap());
    made_of(to.path(), &rows).unwrap();

    let copy = Store::open(to.path(), CACHE_BYTES, QUEUE).unwrap();
    assert_eq!(all(&copy), rows);
    assert_eq!((copy.vault_id(), copy.keys().unwrap()), (store.vault_id(), store.keys().unwrap()));
    assert_eq!(copy.locks().unwrap(), store.locks().unwrap());
    let token = record(3).token;
    assert_eq!(copy.get("shop", &[token]).unwrap(), store.get("shop", &[token]).unwrap());
    copy.close();
    store.close();
}

#[test]
fn a_store_of_before_each_kind_of_use_had_its_tables_is_copied_and_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(dir.path());
    let runtime = runtime();
    let used = |store: &Store, kind, id| runtime.block_on(store.use_up(kind, [id; 32], 9, 1, 1)).unwrap();
    used(&store, UseKind::Envelope, 1);
    store.close();
    drop(store);
    let transaction = Database::open(dir.path().join("vault.redb")).unwrap().begin_write().unwrap();
    for table in ["jwt_uses", "jwt_use_ends", "approval_uses", "approval_use_ends"] {
        assert!(transaction.delete_table(TableDefinition::<'_, &[u8], &[u8]>::new(table)).unwrap());
    }
    transaction.commit().unwrap();

    let store = Store::open(dir.path(), CACHE_BYTES, QUEUE).unwrap();
    assert!(all(&store).iter().any(|row| row.key == [1; 32]));
    for kind in [UseKind::Jwt, UseKind::Approval] {
        assert_eq!([1, 2].map(|id| used(&store, kind, id)), [Use::Again, Use::First]);
    }
    assert!(all(&store).iter().any(|row| row.key == [2; 32]));
    store.close();
}

#[test]
fn what_comes_after_the_snapshot_is_not_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(dir.path());
    let runtime = runtime();
    runtime.block_on(fill(&store, "shop", 0..1_000));
    let before = all(&store);
    let mut snapshot = store.snapshot().unwrap().rows();
    let mut seen: Vec<_> = snapshot.by_ref().take(10).map(Result::unwrap).collect();
    runtime.block_on(async {
        fill(&store, "shop", 1_000..2_000).await;
        for number in 0..500 {
            assert!(store.remove("shop", record(number).token).await.unwrap());
        }
    });
    seen.extend(snapshot.map(Result::unwrap));
    assert_eq!(seen, before);
    assert_eq!(store.records().unwrap(), 1_500);
    store.close();
}

#[test]
fn rows_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = new_store(dir.path());
    let rows = all(&store);
    store.close();
    let with = |row: Row| {
        let to = tempfile::tempdir().unwrap();
        made_of(to.path(), &[rows.as_slice(), &[row]].concat()).unwrap_err().to_string()
    };
    let row = |table, key: &[u8], value: &[u8]| Row { table, key: key.to_vec(), value: value.to_vec() };
    assert!(with(rows[0].clone()).contains("comes twice"));
    assert!(with(row(99, b"", b"")).contains("no table"));
    assert!(with(row(2, b"shop", b"four!")).contains("not what it must be"));
    assert!(with(row(2, b"\xff", &[0; 4])).contains("not what it must be"));
    assert!(with(row(9, &[0, 9, 1], b"")).contains("not what it must be"));
}
