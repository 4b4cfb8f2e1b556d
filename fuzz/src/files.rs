//! What is read from files: configuration, keys of issuers, records, backups, the audit log.

use std::{fs, path::Path};

use vaultd::{
    audit::{Audit, verify::Head, verify::Walk},
    backup::{self, RowReader, put_end, put_row},
    config::Config,
    jose::KeySet,
    store::Record,
};

use crate::world::scratch;

/// The id of the vault that the seeds' log is of; the log names the first half.
const VAULT: [u8; 16] = [0x98, 0x74, 0xe5, 0x44, 0x07, 0xc5, 0xee, 0x50, 0, 0, 0, 0, 0, 0, 0, 0];

/// How many findings `audit verify` lists.
const MOST_FINDINGS: usize = 100;

/// A configuration of any content is read or refused, and a refusal says something.
pub fn config(text: &str) {
    if let Err(errors) = Config::parse(Path::new("vaultd.toml"), text) {
        assert!(!errors.errors().is_empty());
        assert!(!errors.to_string().is_empty());
    }
}

/// Key files of any content are read or refused, and each key that is read can be named.
pub fn key_set(text: &str) {
    if let Ok(keys) = KeySet::parse(text) {
        let kids: Vec<_> = keys.kids().collect();
        assert!(!kids.is_empty());
        for kid in kids {
            assert!(!keys.key(kid).expect("a kid is of a key").verify(text.as_bytes(), "c2ln"));
        }
    }
}

/// Bytes that are a record are written the same.
pub fn record(bytes: &[u8]) {
    if let Ok(record) = Record::decode(bytes) {
        assert_eq!(record.encode().as_deref(), Ok(bytes));
    }
}

/// No bytes upset whoever reads a backup, and rows that are read are written the same.
pub fn backup(bytes: &[u8]) {
    // Its SHA-256 keeps nearly everything out, so what is behind it is tried by itself as well.
    let head = backup::Head::read(&mut &*bytes).ok();
    for header in head.map(|head| head.header).into_iter().chain(backup::Header::parse(bytes)) {
        let _ = (header.vault_id(), header.sealed_by(), header.check_value(), header.audit.mark());
        assert!(!header.summary().is_empty());
    }

    let (mut reader, mut again) = (RowReader::default(), Vec::new());
    let read = bytes.chunks(61).try_for_each(|piece| {
        reader.push(piece, &mut |row| {
            assert!(put_row(&row, &mut again).is_ok());
            Ok(())
        })
    });
    if read.and_then(|()| reader.finish()).is_ok() {
        put_end(&mut again);
        assert!(bytes.starts_with(&again));
        assert!(bytes[again.len()..].iter().all(|byte| *byte == 0));
    }
}

/// No line, and no order of lines, upsets whoever walks along an audit log, or goes on with one that ends so.
pub fn audit_log(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let head = parts.next().and_then(Head::parse);
    let mut walk = Walk::without_keys(head);
    let dir = scratch("audit");
    for (number, file) in (1..).zip(parts) {
        walk.file(number, "audit.jsonl");
        for (number, line) in (1..).zip(file.split(|byte| *byte == b'\n')) {
            walk.line(line, number);
        }
        fs::write(dir.path().join(format!("audit-{number:08}.jsonl")), file).expect("a file");
    }
    let (findings, more) = walk.finish();
    assert!(findings.len() <= MOST_FINDINGS && (more == 0 || findings.len() == MOST_FINDINGS));
    if let Err(error) = Audit::inspect(dir.path(), &VAULT, None) {
        assert!(!error.to_string().is_empty());
    }
}
