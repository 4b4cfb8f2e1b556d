//! A look at every record: whether it opens, says what its card says, and is found by every index.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};

use super::{
    Token, VaultError,
    card_sealing::open_record,
    holder,
    tokenize::{cut, fingerprint_message},
};
use crate::{
    hsm::{Hsm, KeyName, Purpose},
    store::{BlindKey, KeyRole, Place, Record, RowCounts, Store},
};

/// Records that are looked at together.
const RECORDS_AT_ONCE: usize = 256;
/// Records that are at the HSM together, which may be far away, and the most operations of one that wait there.
const AT_THE_HSM: usize = 32;
const OPERATIONS_OF_ONE: usize = 2;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// How many records there are.
    pub records: u64,
    /// What is wrong, and how often.
    pub wrong: BTreeMap<&'static str, u64>,
}

impl Inspection {
    fn count(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.wrong.entry(what).or_default() += times;
        }
    }
}

/// Opens every record of `store` in `hsm`, and compares it with its header, its index rows and the census.
///
/// Reads only, and expects that nobody writes meanwhile. No card data leaves it.
///
/// # Errors
/// [`VaultError`] if the token or the store cannot be used.
pub async fn inspect(hsm: &Hsm, store: &Store) -> Result<Inspection, VaultError> {
    let mut found = Inspection::default();
    let (mut wanted, mut led) = (RowCounts::default(), RowCounts::default());
    let mut census = BTreeMap::<(KeyRole, u32), u64>::new();
    let mut position = Vec::new();
    loop {
        let stretch = store.stretch(&position, RECORDS_AT_ONCE, RECORDS_AT_ONCE, |_| true)?;
        led.add(store.index_rows(&stretch.places)?);
        let mut readable = Vec::new();
        for Place { tenant, token, record } in &stretch.places {
            found.records += 1;
            let (Ok(record), Some(token)) = (record, Token::from_key(token)) else {
                found.count("records do not decode", 1);
                continue;
            };
            wanted.add(RowCounts {
                records: 1,
                fingerprints: 1,
                holders: u64::from(record.header.holder.is_some()),
                expiries: u64::from(record.header.expires_at_s.is_some()),
            });
            for role in KeyRole::ALL {
                if let Some(version) = role.version(&record.header) {
                    *census.entry((role, version)).or_default() += 1;
                }
            }
            readable.push((tenant, token, record));
        }
        let mut looks = stream::iter(readable)
            .map(|(tenant, token, record)| inspect_one(hsm, tenant, token, record))
            .buffer_unordered((hsm.room() / OPERATIONS_OF_ONE).clamp(1, AT_THE_HSM));
        while let Some(wrong) = looks.next().await {
            if let Some(wrong) = wrong? {
                found.count(wrong, 1);
            }
        }
        position = stretch.position;
        if stretch.last {
            break;
        }
    }
    let there = store.row_counts()?;
    for (wanted, led, there) in [
        (wanted.fingerprints, led.fingerprints, there.fingerprints),
        (wanted.holders, led.holders, there.holders),
        (wanted.expiries, led.expiries, there.expiries),
    ] {
        found.count("index rows of records are missing or lead elsewhere", wanted.saturating_sub(led));
        found.count("index rows lead to no record", there.saturating_sub(led));
    }
    compare_census(store, census, &mut found)?;
    Ok(found)
}

/// What is wrong with a record that decodes, if anything is.
async fn inspect_one(
    hsm: &Hsm,
    tenant: &str,
    token: Token,
    record: &Record,
) -> Result<Option<&'static str>, VaultError> {
    let header = &record.header;
    let ((pan, _), private) = match open_record(hsm, tenant, &token, record).await {
        Err(VaultError::RecordForged) => return Ok(Some("records do not open")),
        opened => opened?,
    };
    let masked = pan.masked();
    let shown = (masked.bin_number(), masked.last4_number(), masked.pan_digits());
    let says = (header.bin, u32::from(header.last4), usize::from(header.pan_digits));
    if shown != says {
        return Ok(Some("records show another card than they hold"));
    }
    let message = fingerprint_message(tenant, &pan);
    let key = KeyName { purpose: Purpose::Fingerprint, version: header.fingerprint_version };
    if hsm.mac(key, vec![message]).await?.first().is_none_or(|mac| cut(mac) != header.fingerprint) {
        return Ok(Some("records have the fingerprint of another card"));
    }
    if let (Some(key), Some(name)) = (header.holder, &private.holder) {
        let purpose = KeyName { purpose: Purpose::Holder, version: key.version };
        let macs = hsm.mac(purpose, vec![holder::message(tenant, name.expose())]).await?;
        if macs.first().is_none_or(|mac| BlindKey { version: key.version, hash: cut(mac) } != key) {
            return Ok(Some("records are found under another holder"));
        }
    }
    Ok(None)
}

/// Whether the store's own counts are right, and every key that records depend on is there.
fn compare_census(
    store: &Store,
    mut census: BTreeMap<(KeyRole, u32), u64>,
    found: &mut Inspection,
) -> Result<(), VaultError> {
    for (name, key) in store.keys()? {
        let Some(name) = KeyName::parse(&name) else { continue };
        let Some(role) = KeyRole::of(name.purpose.as_str()) else { continue };
        let counted = census.remove(&(role, name.version)).unwrap_or(0);
        found.count("records are counted wrong in the census", counted.abs_diff(key.records));
        if !key.state.is_live() {
            found.count("records depend on a key that is destroyed", counted);
        }
    }
    found.count("records depend on a key that nobody recorded", census.into_values().sum());
    Ok(())
}
