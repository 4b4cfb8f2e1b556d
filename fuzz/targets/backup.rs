//! No bytes upset whoever reads a backup, and rows that are read are written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaultd::backup::{Head, Header, RowReader, put_end, put_row};

fuzz_target!(|bytes: &[u8]| {
    // Its SHA-256 keeps nearly everything out, so what is behind it is tried by itself as well.
    let head = Head::read(&mut &*bytes).ok();
    for header in head.map(|head| head.header).into_iter().chain(Header::parse(bytes)) {
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
});
