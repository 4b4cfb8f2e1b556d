//! What a new store holds, what an old one must hold, and why one cannot be opened.

use std::collections::HashMap;

use redb::{Database, Key, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use super::{
    KeyState, OpenError, SCHEMA_VERSION, StoreError, StoredKey,
    cells::{Cell, Visitor, visit_tables},
    error::failed,
    handle::Handle,
    key_book::{parse_name, read_rows},
    schema::TenantId,
    tables::{KEYS, META, RecordTables, TENANTS, read_tenants},
};

pub(super) const META_SCHEMA: &str = "schema";
const META_VAULT: &str = "vault";
/// The oldest schema whose rows are read as they are: the next one has only added tables, which the guards alone read.
pub(super) const OLDEST_READ_AS_IT_IS: u32 = 3;
/// Bytes of a vault's id.
pub(super) const VAULT_ID_BYTES: usize = 16;

/// Makes every table, so that a reader never meets a missing one.
pub(super) fn lay_out(database: &Database, vault_id: [u8; VAULT_ID_BYTES]) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(META_SCHEMA, SCHEMA_VERSION.to_be_bytes().as_slice())?;
        meta.insert(META_VAULT, vault_id.as_slice())?;
    }
    make_tables(&transaction)?;
    Ok(transaction.commit()?)
}

/// Makes the tables that are missing.
fn make_tables(transaction: &WriteTransaction) -> Result<(), StoreError> {
    struct Make<'t>(&'t WriteTransaction);
    impl Visitor for Make<'_> {
        fn table<K: Key + Cell + 'static, V: Cell + 'static>(
            &mut self,
            _: u8,
            definition: TableDefinition<'static, K, V>,
        ) -> Result<(), StoreError> {
            self.0.open_table(definition)?;
            Ok(())
        }
    }
    visit_tables(&mut Make(transaction))
}

/// Brings a store of an older schema to the newest, in one transaction.
///
/// Schema 2 added the tables of holders and of uses. Records of schema 1 are read as they are; their holders are not
/// found by a search until the card is tokenized anew. Schema 3 added the states of keys, and the census; schema 4 the
/// tables of the guards.
pub(super) fn upgrade(handle: &Handle) -> Result<(), StoreError> {
    let found = handle.with(read_schema)?;
    if found >= SCHEMA_VERSION {
        return Ok(());
    }
    tracing::info!(from = found, to = SCHEMA_VERSION, "bringing the store to a newer schema");
    handle.change(|transaction| {
        make_tables(transaction)?;
        if found < 3 {
            give_keys_states(transaction)?;
            let mut tables = RecordTables::open(transaction)?;
            tables.take_census()?;
            tables.finish(transaction)?;
        }
        transaction.open_table(META)?.insert(META_SCHEMA, SCHEMA_VERSION.to_be_bytes().as_slice())?;
        Ok(())
    })
}

/// Before schema 3 the newest key of a purpose was the one in use, and a row was: when it was recorded (8), encryptions
/// reserved (8), check value.
fn give_keys_states(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut table = transaction.open_table(KEYS)?;
    let mut keys = Vec::new();
    for row in table.iter()? {
        let (name, bytes) = row?;
        let (name, bytes) = (name.value().to_owned(), bytes.value());
        let damaged = || StoreError::Failed(format!("the entry of key {name} is damaged"));
        let (created_at_ms, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
        let (reserved_seals, check_value) = rest.split_first_chunk().ok_or_else(damaged)?;
        let created_at_ms = u64::from_be_bytes(*created_at_ms);
        let mut key = StoredKey::new(KeyState::Active, created_at_ms, check_value.to_vec());
        key.reserved_seals = u64::from_be_bytes(*reserved_seals);
        keys.push((name, key));
    }
    let named: Vec<_> =
        keys.iter().filter_map(|(name, key)| Some((parse_name(name)?, key.created_at_ms))).collect();
    let successor = |name: &str| {
        let (purpose, version) = parse_name(name)?;
        let newer = named.iter().filter(|((of, number), _)| *of == purpose && *number > version);
        newer.min_by_key(|((_, number), _)| *number).map(|(_, created_at_ms)| *created_at_ms)
    };
    for (name, key) in &keys {
        let mut key = key.clone();
        if let Some(retired_at_ms) = successor(name) {
            key.state = KeyState::Retired;
            key.retired_at_ms = Some(retired_at_ms);
        }
        table.insert(name.as_str(), key.encode().as_slice())?;
    }
    Ok(())
}

/// The vault's id, and the tenants by name.
type Meta = ([u8; VAULT_ID_BYTES], HashMap<String, TenantId>);

/// Reads who the store belongs to; refuses what is no store, or a newer one.
pub(super) fn read_meta(handle: &Handle) -> Result<Meta, OpenError> {
    let path = handle.path();
    let read = handle.with(|database| {
        let snapshot = database.begin_read()?;
        let meta = match snapshot.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::Storage(error)) => return Err(error.into()),
            Err(_) => return Ok(Err(OpenError::NotAStore(path.to_owned()))),
        };
        let schema = meta.get(META_SCHEMA)?;
        match schema.and_then(|bytes| bytes.value().try_into().ok()).map(u32::from_be_bytes) {
            None => return Ok(Err(OpenError::NotAStore(path.to_owned()))),
            Some(found) if found > SCHEMA_VERSION => {
                return Ok(Err(OpenError::NewerSchema { path: path.to_owned(), found }));
            }
            Some(_) => {}
        }
        let vault_id = meta.get(META_VAULT)?;
        let Some(vault_id) = vault_id.and_then(|bytes| bytes.value().try_into().ok()) else {
            return Ok(Err(OpenError::NotAStore(path.to_owned())));
        };
        Ok(Ok((vault_id, read_tenants(&snapshot.open_table(TENANTS)?)?)))
    });
    read.map_err(|error| failed(path, &error))?
}

/// The schema of a store, which [`read_meta`] has found to be one.
pub(super) fn read_schema(database: &Database) -> Result<u32, StoreError> {
    let meta = database.begin_read()?.open_table(META)?;
    let found = meta.get(META_SCHEMA)?.and_then(|bytes| bytes.value().try_into().ok());
    found.map(u32::from_be_bytes).ok_or_else(|| StoreError::Failed("its schema is damaged".to_owned()))
}

/// The recorded keys, by name.
pub(super) fn read_keys(database: &Database) -> Result<Vec<(String, StoredKey)>, StoreError> {
    read_rows(&database.begin_read()?.open_table(KEYS)?)
}
