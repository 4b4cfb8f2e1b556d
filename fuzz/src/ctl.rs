//! What operators give `vaultctl`: files of values, times, arguments.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use vaultctl::{
    lines::{Lines, LinesError, MAX_LINE_BYTES},
    time,
    visible::{refuse_card_numbers, refuse_long_numbers},
};
use vaultd::card::Pan;

/// A file, a moment, and a word of the command line. Every line that is not blank is given once and in order, with a value
/// that is there; times are in order; no argument passes that the vault would take for a card number, and no refusal
/// repeats one.
pub fn ctl(bytes: &[u8]) {
    file(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(seconds) = time::seconds(text) {
            assert!(!time::short(seconds).is_empty());
        }
        let _ = time::moment(text);
    }
    let words = [b"vaultctl".to_vec(), bytes.to_vec()].map(OsString::from_vec);
    let refused = refuse_card_numbers(&words);
    let is_card =
        std::str::from_utf8(bytes).is_ok_and(|text| Pan::parse(text).is_ok_and(|pan| pan.luhn_valid()));
    assert!(!is_card || refused.is_err(), "a card number is taken on the command line");
    if is_card && bytes.iter().all(u8::is_ascii_digit) {
        let row = [b"holder,", bytes, b",12/30"].concat();
        let words = [b"vaultctl".to_vec(), row].map(OsString::from_vec);
        assert!(
            refuse_card_numbers(&words).is_err(),
            "a row with a card number is taken on the command line"
        );
    }
    for complaint in refused.err().into_iter().chain(refuse_long_numbers(&words).err()) {
        assert!(!complaint.bytes().any(|byte| byte.is_ascii_digit()), "{complaint}");
    }
}

fn file(bytes: &[u8]) {
    let marked = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let whole =
        marked.split(|byte| *byte == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace)).count();
    let mut lines = match Lines::new(bytes, "pan") {
        Ok(lines) => lines,
        Err(error) => return expect_reason(&error, bytes),
    };
    let (holder, is_csv) = (lines.column("holder"), lines.column("pan").is_some());
    let (mut given, mut last) = (0, 0);
    loop {
        let line = match lines.next_row() {
            Ok(None) => break,
            Ok(Some(Ok(row))) => {
                assert!(!row.value.expose().trim().is_empty());
                let _ = row.field(holder);
                row.line
            }
            Ok(Some(Err(none))) => none.line,
            Err(error) => return expect_reason(&error, bytes),
        };
        assert!(line > last && line == lines.line(), "lines come in order");
        (given, last) = (given + 1, line);
    }
    assert_eq!(given + usize::from(is_csv), whole, "every line is given");
    assert_eq!(lines.bytes(), u64::try_from(bytes.len()).unwrap_or(u64::MAX));
}

fn expect_reason(error: &LinesError, bytes: &[u8]) {
    let most = usize::try_from(MAX_LINE_BYTES).unwrap_or(usize::MAX);
    match error {
        LinesError::Read(error) => panic!("{error}"),
        LinesError::TooLong(_) => assert!(bytes.len() >= most),
        LinesError::NoColumn => assert!(bytes.iter().any(|byte| b",;\t".contains(byte))),
        LinesError::GoesOn(_) => assert!(bytes.contains(&b'"') || bytes.contains(&b'\r')),
    }
}
