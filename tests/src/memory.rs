//! What a debugger with every right finds in a process: `/proc/PID/mem`, which asks nobody who has `CAP_SYS_PTRACE`.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    os::unix::fs::FileExt,
};

/// How a card number was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spelling {
    /// As ASCII digits, between which single blanks or hyphens may stand.
    Digits,
    /// Two digits a byte (packed BCD).
    Packed,
}

/// A card number in memory.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The number.
    pub pan: String,
    /// How it was written.
    pub spelling: Spelling,
    /// What lies there: `[heap]`, a library, or nothing for memory without a name.
    pub mapping: String,
    /// The bytes around it: only for the eyes of whoever looks for a leak.
    pub around: String,
}

const DIGITS: usize = 16;
const AROUND: usize = 48;

/// Where in the memory of the process `pid` any of `pans`, of 16 digits each, is. Takes root, or one's own process.
///
/// # Panics
/// If the process cannot be looked into.
pub fn find_pans<'p>(pid: u32, pans: impl IntoIterator<Item = &'p String>) -> Vec<Hit> {
    let wanted: HashSet<[u8; DIGITS]> =
        pans.into_iter().map(|pan| pan.as_bytes().try_into().unwrap()).collect();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut hits = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let mapping = words.nth(3).unwrap_or_default();
        // The kernel's own pages cannot be read this way.
        if !rights.starts_with('r') || ["[vvar]", "[vvar_vclock]", "[vsyscall]"].contains(&mapping) {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
        // A file that was cut short has pages that are not there.
        let read = memory.read_at(&mut bytes, start).unwrap_or_default();
        for (pan, spelling, at) in find(&bytes[..read], &wanted) {
            let around = &bytes[at.saturating_sub(AROUND)..read.min(at + AROUND)];
            let around = around.escape_ascii().to_string();
            hits.push(Hit { pan, spelling, mapping: mapping.to_owned(), around });
        }
    }
    hits
}

/// How many hits there are in which mapping and spelling, for people.
pub fn by_place(hits: &[Hit]) -> BTreeMap<(String, Spelling), usize> {
    let mut places = BTreeMap::new();
    for hit in hits {
        *places.entry((hit.mapping.clone(), hit.spelling)).or_default() += 1;
    }
    places
}

fn find(bytes: &[u8], wanted: &HashSet<[u8; DIGITS]>) -> Vec<(String, Spelling, usize)> {
    let mut found = Vec::new();
    let mut look = |first: u8, spelling: Spelling, read: fn(&[u8]) -> Option<[u8; DIGITS]>| {
        for at in memchr::memchr_iter(first, bytes) {
            if let Some(pan) = read(&bytes[at..]).filter(|pan| wanted.contains(pan)) {
                found.push((String::from_utf8(pan.to_vec()).unwrap(), spelling, at));
            }
        }
    };
    for first in wanted.iter().map(|pan| pan[0]).collect::<HashSet<_>>() {
        look(first, Spelling::Digits, digits);
    }
    for first in wanted.iter().map(|pan| (pan[0] & 0xF) << 4 | pan[1] & 0xF).collect::<HashSet<_>>() {
        look(first, Spelling::Packed, packed);
    }
    found
}

fn digits(bytes: &[u8]) -> Option<[u8; DIGITS]> {
    let mut pan = [0; DIGITS];
    let mut bytes = bytes.iter();
    let mut separated = true;
    for digit in &mut pan {
        *digit = match *bytes.next()? {
            b' ' | b'-' if !separated => *bytes.next()?,
            byte => byte,
        };
        separated = !digit.is_ascii_digit();
        if separated {
            return None;
        }
    }
    Some(pan)
}

fn packed(bytes: &[u8]) -> Option<[u8; DIGITS]> {
    let packed = u64::from_be_bytes(*bytes.first_chunk()?);
    // A nibble above 9 has its 8 and its 4 or its 2.
    let (eights, fours, twos) = (EACH << 3, EACH << 2, EACH << 1);
    if packed & eights & ((packed & fours) << 1 | (packed & twos) << 2) != 0 {
        return None;
    }
    format!("{packed:016x}").into_bytes().try_into().ok()
}

/// A bit in each nibble.
const EACH: u64 = 0x1111_1111_1111_1111;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_is_found_at_any_place() {
        let wanted = HashSet::from([*b"4111111111111111"]);
        let packed = [0x41, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11];
        for (bytes, spelling) in [
            (b"x94111111111111111".as_slice(), Spelling::Digits),
            (b"4111 1111 1111 1111", Spelling::Digits),
            (b"(4111-1111-1111-1111)", Spelling::Digits),
            (&packed, Spelling::Packed),
        ] {
            let found = find(bytes, &wanted);
            assert_eq!(found.len(), 1, "{bytes:?}");
            assert_eq!((found[0].0.as_str(), found[0].1), ("4111111111111111", spelling));
        }
        for other in [b"4111111111111112".as_slice(), b"411111111111111", b"4111  1111 1111 1111", &[0x41; 8]]
        {
            assert!(find(other, &wanted).is_empty(), "{other:?}");
        }
    }
}
