//! The tables, and the changes to them that belong together.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{
    BlindKey, FingerprintKey, Lookup, Record, RecordError, StoreError, TokenKey,
    key_book::KeyBook,
    records::Records,
    schema::{TenantId, expiry_key, holder_key, record_key, shared_fingerprint_key, single_fingerprint_key},
};

pub(super) type Bytes = &'static [u8];
pub(super) type UseTable = TableDefinition<'static, Bytes, u64>;
pub(super) type UseEndTable = TableDefinition<'static, Bytes, ()>;

/// Schema version, vault id, and how far the rewrap job is.
pub(super) const META: TableDefinition<'_, &str, Bytes> = TableDefinition::new("meta");
/// Tenant name → number.
pub(super) const TENANTS: TableDefinition<'_, &str, TenantId> = TableDefinition::new("tenants");
/// Tenant ‖ token → record.
pub(super) const RECORDS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("records");
/// Tenant ‖ key version ‖ fingerprint ‖ template → token.
pub(super) const FINGERPRINTS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("fingerprints");
/// Tenant ‖ key version ‖ holder's hash ‖ token → nothing.
pub(super) const HOLDERS: TableDefinition<'_, Bytes, ()> = TableDefinition::new("holders");
/// Id of an envelope that was opened → when that may be forgotten, in seconds of Unix time. Of before the
/// other kinds had their tables, also theirs.
pub(super) const USES: UseTable = TableDefinition::new("uses");
/// End ‖ id → nothing.
pub(super) const USE_ENDS: UseEndTable = TableDefinition::new("use_ends");
/// The same of `jti` of callers.
pub(super) const JWT_USES: UseTable = TableDefinition::new("jwt_uses");
pub(super) const JWT_USE_ENDS: UseEndTable = TableDefinition::new("jwt_use_ends");
/// The same of `jti` of approvals.
pub(super) const APPROVAL_USES: UseTable = TableDefinition::new("approval_uses");
pub(super) const APPROVAL_USE_ENDS: UseEndTable = TableDefinition::new("approval_use_ends");
/// End ‖ tenant ‖ token → nothing.
pub(super) const EXPIRIES: TableDefinition<'_, Bytes, ()> = TableDefinition::new("expiries");
/// Issuer, subject → when it was locked in milliseconds of Unix time, tenant, reason.
pub(super) const LOCKS: TableDefinition<'_, (&str, &str), (u64, &str, &str)> = TableDefinition::new("locks");
/// Window ‖ number of a block → which cards were counted in it, and when.
pub(super) const WINDOWS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("windows");
/// Key name → [`super::StoredKey`].
pub(super) const KEYS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("keys");

/// The tables a change to a record touches, open in one transaction.
pub(super) struct RecordTables<'t> {
    pub(super) records: Records<'t>,
    pub(super) fingerprints: Table<'t, Bytes, Bytes>,
    pub(super) holders: Table<'t, Bytes, ()>,
    pub(super) expiries: Table<'t, Bytes, ()>,
    /// Counts every record that comes or goes.
    pub(super) keys: KeyBook,
}

/// A record and its bytes: what cannot be encoded must fail before anything is written.
pub(super) struct Encoded {
    pub(super) record: Record,
    pub(super) bytes: Vec<u8>,
}

impl Encoded {
    pub(super) fn new(record: Record) -> Result<Self, StoreError> {
        let bytes = record.encode()?;
        Ok(Self { record, bytes })
    }
}

/// What stands in the way of a new record.
pub(super) enum Clash {
    /// Another card has its token.
    Token,
    /// Its card has this token.
    Card(TokenKey),
}

impl<'t> RecordTables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            records: Records::open(transaction)?,
            fingerprints: transaction.open_table(FINGERPRINTS)?,
            holders: transaction.open_table(HOLDERS)?,
            expiries: transaction.open_table(EXPIRIES)?,
            keys: KeyBook::read(transaction)?,
        })
    }

    pub(super) fn record(&self, tenant: TenantId, token: &TokenKey) -> Result<Option<Record>, StoreError> {
        Ok(self.records.get(&record_key(tenant, token))??)
    }

    /// Adds a new record and its index rows, unless its token or its card is there already.
    pub(super) fn put_new(
        &mut self,
        tenant: TenantId,
        token: &TokenKey,
        new: &Encoded,
    ) -> Result<Option<Clash>, StoreError> {
        let key = record_key(tenant, token);
        if self.records.contains(&key)? {
            return Ok(Some(Clash::Token));
        }
        // Writes first and looks at what it has replaced: that is nearly always nothing, and half the look-ups.
        let row = fingerprint_row(tenant, token, &new.record);
        let old = self.fingerprints.insert(row.as_slice(), token.as_bytes())?;
        let old = old.and_then(|token| TokenKey::new(token.value()));
        if let Some(old) = old {
            self.fingerprints.insert(row.as_slice(), old.as_bytes())?;
            return Ok(Some(Clash::Card(old)));
        }
        self.records.add(key, &new.bytes);
        self.put_other_rows(tenant, token, &new.record)?;
        self.keys.add(&new.record.header);
        Ok(None)
    }

    /// The token that `card` has.
    pub(super) fn token_of(
        &self,
        tenant: TenantId,
        card: &FingerprintKey,
    ) -> Result<Option<TokenKey>, StoreError> {
        self.token_at(&shared_fingerprint_key(tenant, card))
    }

    fn token_at(&self, row: &[u8]) -> Result<Option<TokenKey>, StoreError> {
        token_at(&self.fingerprints, row)
    }

    /// Writes a new record and its index rows.
    pub(super) fn put(
        &mut self,
        tenant: TenantId,
        token: &TokenKey,
        new: &Encoded,
    ) -> Result<(), StoreError> {
        self.write(tenant, token, new, &fingerprint_row(tenant, token, &new.record))
    }

    /// Writes `new` in the place of `old`. A token that has made room for another stays aside.
    pub(super) fn replace(
        &mut self,
        tenant: TenantId,
        token: &TokenKey,
        old: &Record,
        new: &Encoded,
    ) -> Result<(), StoreError> {
        let is_aside = self.token_at(&fingerprint_row(tenant, token, old))? != Some(*token);
        self.remove(tenant, token, old)?;
        let row = if is_aside { own_fingerprint_row } else { fingerprint_row };
        self.write(tenant, token, new, &row(tenant, token, &new.record))
    }

    fn write(
        &mut self,
        tenant: TenantId,
        token: &TokenKey,
        new: &Encoded,
        row: &[u8],
    ) -> Result<(), StoreError> {
        self.records.put(&record_key(tenant, token), &new.bytes)?;
        self.fingerprints.insert(row, token.as_bytes())?;
        self.keys.add(&new.record.header);
        self.put_other_rows(tenant, token, &new.record)
    }

    /// Makes room for another token of the same card: this one, which has ended, is found by a search alone.
    pub(super) fn set_aside(
        &mut self,
        tenant: TenantId,
        token: &TokenKey,
        ended: &Record,
    ) -> Result<(), StoreError> {
        self.fingerprints.remove(fingerprint_row(tenant, token, ended).as_slice())?;
        let row = own_fingerprint_row(tenant, token, ended);
        self.fingerprints.insert(row.as_slice(), token.as_bytes())?;
        Ok(())
    }

    /// Removes the row of a card that leads to no record.
    pub(super) fn forget_card(&mut self, tenant: TenantId, card: &FingerprintKey) -> Result<(), StoreError> {
        self.fingerprints.remove(shared_fingerprint_key(tenant, card).as_slice())?;
        Ok(())
    }

    /// Whether `token` has made room for another of its card.
    pub(super) fn is_aside(
        &self,
        tenant: TenantId,
        token: &TokenKey,
        record: &Record,
    ) -> Result<bool, StoreError> {
        let own = self.token_at(&own_fingerprint_row(tenant, token, record))?;
        Ok(record.header.reusable && own == Some(*token))
    }

    fn put_other_rows(
        &mut self,
        tenant: TenantId,
        token: &TokenKey,
        record: &Record,
    ) -> Result<(), StoreError> {
        if let Some(holder) = &record.header.holder {
            self.holders.insert(holder_key(tenant, holder, token).as_slice(), ())?;
        }
        if let Some(end_s) = record.header.expires_at_s {
            self.expiries.insert(expiry_key(end_s, tenant, token).as_slice(), ())?;
        }
        Ok(())
    }

    /// Removes a record and its index rows.
    pub(super) fn remove(
        &mut self,
        tenant: TenantId,
        token: &TokenKey,
        record: &Record,
    ) -> Result<(), StoreError> {
        self.records.remove(&record_key(tenant, token))?;
        let row = row_of_token(&self.fingerprints, tenant, token, record)?;
        self.fingerprints.remove(row.as_slice())?;
        if let Some(holder) = &record.header.holder {
            self.holders.remove(holder_key(tenant, holder, token).as_slice())?;
        }
        if let Some(end_s) = record.header.expires_at_s {
            self.expiries.remove(expiry_key(end_s, tenant, token).as_slice())?;
        }
        self.keys.remove(&record.header);
        Ok(())
    }

    /// Counts the records of each key version anew.
    pub(super) fn take_census(&mut self) -> Result<(), StoreError> {
        self.keys.forget_counts();
        // What does not decode depends on no key that is known.
        let keys = &mut self.keys;
        self.records.each_header(|header| keys.add(header))
    }

    /// Writes what is kept until the transaction's end. Nothing counts before.
    pub(super) fn finish(mut self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        self.records.write()?;
        self.keys.write(transaction)
    }

    /// Removes a record that does not decode, so that neither its index rows nor its keys are known.
    pub(super) fn remove_damaged(&mut self, tenant: TenantId, token: &TokenKey) -> Result<(), StoreError> {
        self.records.remove(&record_key(tenant, token))
    }
}

/// The record of `token`. The inner error is that of a record that does not decode, which concerns nobody else.
pub(super) fn read_record(
    records: &impl ReadableTable<Bytes, Bytes>,
    tenant: TenantId,
    token: &TokenKey,
) -> Result<Result<Option<Record>, RecordError>, StoreError> {
    record_at(records, &record_key(tenant, token))
}

/// The same, of a key.
pub(super) fn record_at(
    records: &impl ReadableTable<Bytes, Bytes>,
    key: &[u8],
) -> Result<Result<Option<Record>, RecordError>, StoreError> {
    let bytes = records.get(key)?;
    Ok(bytes.map(|bytes| Record::decode(bytes.value())).transpose())
}

/// Up to `most` keys of `ends` below `before_s`, in seconds of Unix time: what has ended.
pub(super) fn ended(
    ends: &impl ReadableTable<Bytes, ()>,
    before_s: u64,
    most: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let end = before_s.to_be_bytes();
    ends.range(..end.as_slice())?.take(most).map(|row| Ok(row?.0.value().to_vec())).collect()
}

/// The rows of the table of tenants: names and numbers.
pub(super) fn read_tenants<C: FromIterator<(String, TenantId)>>(
    tenants: &impl ReadableTable<&'static str, TenantId>,
) -> Result<C, StoreError> {
    tenants
        .iter()?
        .map(|row| {
            let (name, id) = row?;
            Ok((name.value().to_owned(), id.value()))
        })
        .collect()
}

/// The row that a new record gets: its card's, or where the card may have many tokens, its own.
fn fingerprint_row(tenant: TenantId, token: &TokenKey, record: &Record) -> Vec<u8> {
    if record.header.reusable {
        shared_fingerprint_key(tenant, &record.fingerprint_key())
    } else {
        own_fingerprint_row(tenant, token, record)
    }
}

fn own_fingerprint_row(tenant: TenantId, token: &TokenKey, record: &Record) -> Vec<u8> {
    single_fingerprint_key(tenant, &record.fingerprint_key(), token)
}

/// The row that leads to `token`: its card's, unless the card has another token by now.
pub(super) fn row_of_token(
    fingerprints: &impl ReadableTable<Bytes, Bytes>,
    tenant: TenantId,
    token: &TokenKey,
    record: &Record,
) -> Result<Vec<u8>, StoreError> {
    let row = fingerprint_row(tenant, token, record);
    let is_its_own = token_at(fingerprints, &row)? == Some(*token);
    Ok(if is_its_own { row } else { own_fingerprint_row(tenant, token, record) })
}

fn token_at(
    fingerprints: &impl ReadableTable<Bytes, Bytes>,
    row: &[u8],
) -> Result<Option<TokenKey>, StoreError> {
    Ok(fingerprints.get(row)?.and_then(|token| TokenKey::new(token.value())))
}

impl Record {
    /// Where this record's card is looked up.
    pub(super) fn fingerprint_key(&self) -> FingerprintKey {
        FingerprintKey {
            version: self.header.fingerprint_version,
            fingerprint: self.header.fingerprint,
            template: self.header.template.clone(),
        }
    }

    /// Whether this is a record that `lookup` may find. An index row that says so may have been edited.
    pub fn fits(&self, lookup: &Lookup) -> bool {
        let header = &self.header;
        match lookup {
            Lookup::Card(keys) => {
                let is = BlindKey { version: header.fingerprint_version, hash: header.fingerprint };
                keys.contains(&is)
            }
            Lookup::Holder(keys) => header.holder.is_some_and(|holder| keys.contains(&holder)),
        }
    }

    /// Whether this is a record that `card` may be given again. An index row that says so may have been edited.
    pub(super) fn is_of(&self, card: &FingerprintKey) -> bool {
        let header = &self.header;
        header.reusable
            && header.fingerprint_version == card.version
            && header.fingerprint == card.fingerprint
            && header.template == card.template
    }
}
