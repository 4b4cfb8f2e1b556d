//! What a store holds, by names: `token 7`, `key record-v1`, `lock anna`, `window 3`, `use 4`, `rewrap`. And whether that is
//! what its journal says.

use std::path::Path;

use vaultd::store::{
    BlindKey, Header, KeyRole, Place, Record, RowCounts, SealedPart, Store, StoreError, TokenKey,
};

use super::journal::{Facts, Known};

pub(super) const CACHE_BYTES: usize = 1 << 20;
pub(super) const QUEUE: usize = 256;
pub(super) const TENANT: &str = "shop";
/// The table of uses (`docs/backup-format.md`).
const USES_TABLE: u8 = 6;
const MOST: usize = 1_000_000;

/// What tells a record from others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Card {
    pub(super) token: u32,
    pub(super) mark: u32,
    /// Bytes of its private part.
    pub(super) size: usize,
    pub(super) expires_at_s: Option<u64>,
    /// Version of its record key.
    pub(super) version: u32,
}

impl Card {
    pub(super) fn key(self) -> TokenKey {
        TokenKey::new(&[b"u", self.token.to_be_bytes().as_slice()].concat()).unwrap()
    }

    pub(super) fn record(self) -> Record {
        let Self { token, mark, size, expires_at_s, version } = self;
        let spread = |number: u32| -> Vec<u8> { number.to_be_bytes().repeat(4) };
        let nonce = |mark: u32| spread(mark)[..12].try_into().unwrap();
        let holder = BlindKey { version: 1, hash: spread(token % 5).try_into().unwrap() };
        let filled = |len| (mark..).map(|byte| byte.to_le_bytes()[0]).take(len).collect();
        Record {
            header: Header {
                key_version: version,
                fingerprint_version: 1,
                fingerprint: spread(token).try_into().unwrap(),
                reusable: !token.is_multiple_of(4),
                bin: 411_111,
                last4: 1_111,
                pan_digits: 16,
                created_at_ms: 1,
                expires_at_s,
                template: "default".to_owned(),
                holder: token.is_multiple_of(3).then_some(holder),
            },
            private: (size > 0).then(|| SealedPart { nonce: nonce(!mark), ciphertext: filled(size) }),
            card: SealedPart { nonce: nonce(mark), ciphertext: filled(40) },
        }
    }

    fn of(token: &TokenKey, record: &Record) -> Self {
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        Self {
            token: number(&token.as_bytes()[1..]),
            mark: number(&record.card.nonce[..4]),
            size: record.private.as_ref().map_or(0, |private| private.ciphertext.len()),
            expires_at_s: record.header.expires_at_s,
            version: record.header.key_version,
        }
    }

    pub(super) fn name(self) -> String {
        format!("token {}", self.token)
    }

    pub(super) fn fact(self) -> String {
        format!("{self:?}")
    }
}

/// Opens what a power failure has left of the store in `dir`, and says how many changes it had acknowledged. `journal` is
/// the journal at that moment, nothing if it was not begun.
///
/// # Panics
/// If the store does not open, has lost anything, has done anything by half, or is not whole.
pub fn check(dir: &Path, journal: Option<&[u8]>) -> usize {
    let Some(journal) = journal else {
        // Nobody was told that there is a store: making it must still be possible.
        Store::create(dir, [7; 16], CACHE_BYTES, QUEUE).unwrap().close();
        return 0;
    };
    let store = Store::open(dir, CACHE_BYTES, QUEUE).unwrap();
    let mut known = Known::from(journal);
    let found = observe(&store).unwrap();
    for change in std::mem::take(&mut known.open).into_values() {
        // Whole or not at all: one of its names tells which.
        let (name, value) =
            change.iter().find(|(name, value)| known.facts.get(*name) != value.as_ref()).unwrap();
        if found.get(name) == value.as_ref() {
            known.apply(change);
        }
    }
    let differs = |name: &&String| found.get(*name) != known.facts.get(*name);
    let wrong: Vec<_> = known.facts.keys().chain(found.keys()).filter(differs).collect();
    assert!(
        wrong.is_empty(),
        "{:?}",
        wrong.iter().map(|name| (name, known.facts.get(*name), found.get(*name))).collect::<Vec<_>>()
    );
    store.close();
    drop(store);
    let mut database = redb::Database::open(Store::file(dir)).unwrap();
    assert!(matches!(database.check_integrity(), Ok(true)), "the database is damaged");
    known.acknowledged
}

/// Everything that `store` holds, of which tables and counts must agree.
fn observe(store: &Store) -> Result<Facts, StoreError> {
    let mut facts = Facts::new();
    let places = store.stretch(&[], MOST, MOST, |_| true)?.places;
    for Place { token, record, .. } in &places {
        let record = record.as_ref().unwrap();
        let card = Card::of(token, record);
        assert_eq!(*record, card.record(), "not a record that was written");
        facts.insert(card.name(), card.fact());
    }
    let rows: RowCounts = store.index_rows(&places)?;
    assert_eq!(rows, store.row_counts()?, "rows without a record, or a record without its rows");
    for (name, key) in store.keys()? {
        let (purpose, version) = name.rsplit_once("-v").unwrap();
        let role = KeyRole::of(purpose).unwrap();
        let depends = |place: &&Place| {
            role.version(&place.record.as_ref().unwrap().header) == Some(version.parse().unwrap())
        };
        let census = places.iter().filter(depends).count();
        assert_eq!(key.records, u64::try_from(census).unwrap(), "the census of {name}");
        if name != "fingerprint-v1" && name != "holder-v1" {
            facts.insert(format!("key {name}"), key.state.as_str().to_owned());
        }
    }
    for lock in store.locks()? {
        facts.insert(format!("lock {}", lock.subject), lock.reason);
    }
    for (key, value) in store.window_rows()? {
        facts.insert(format!("window {}", key[0]), format!("{value:?}"));
    }
    if let Some(job) = store.rewrap_job()? {
        facts.insert("rewrap".to_owned(), job.started_at_ms.to_string());
    }
    for row in store.snapshot()?.rows() {
        let row = row?;
        if row.table == USES_TABLE {
            facts.insert(format!("use {}", row.key[0]), "used".to_owned());
        }
    }
    Ok(facts)
}
