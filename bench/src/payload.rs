//! What the load generator sends: card numbers and request bodies, all of them from one seed.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Items of a batch: the most the API takes.
pub(crate) const BATCH: u64 = 1_000;

/// An endless deck of distinct, random-looking 16-digit card numbers with a valid check digit.
///
/// A keyed permutation of 10^14 indexes instead of a set of what was drawn: number `n` can be made again at
/// any time, and a million of them need no memory.
#[derive(Debug)]
pub(crate) struct Pans {
    seed: u64,
    next: AtomicU64,
}

impl Pans {
    /// The deck of `seed`, from its start.
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }

    /// The deck of `seed` without its first `drawn` numbers.
    pub(crate) fn after(seed: u64, drawn: u64) -> Self {
        Self { seed, next: AtomicU64::new(drawn) }
    }

    /// A number that was not drawn before.
    pub(crate) fn draw(&self) -> u64 {
        self.at(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// How many were drawn, those included that it began without.
    pub(crate) fn drawn(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// The number `index`: a `4`, 14 permuted digits and the check digit.
    pub(crate) fn at(&self, index: u64) -> u64 {
        let (mut left, mut right) = (index / HALF % HALF, index % HALF);
        for round in 0..FEISTEL_ROUNDS {
            (left, right) = (right, (left + mix(self.seed ^ mix(right + round * HALF)) % HALF) % HALF);
        }
        with_check_digit(4 * HALF * HALF + left * HALF + right)
    }
}

/// The Luhn check digit behind `payload` (ISO/IEC 7812-1, annex B).
fn with_check_digit(payload: u64) -> u64 {
    let (mut rest, mut sum, mut double) = (payload, 0, true);
    while rest > 0 {
        let digit = rest % 10;
        sum += if double { digit * 2 / 10 + digit * 2 % 10 } else { digit };
        double = !double;
        rest /= 10;
    }
    payload * 10 + (10 - sum % 10) % 10
}

/// `SplitMix64`: enough for spreading a load, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of `seed` for the user `lane` of it.
    pub(crate) fn new(seed: u64, lane: u64) -> Self {
        Self(mix(seed ^ mix(lane)))
    }

    /// The next 64 bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// Random bytes.
    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_be_bytes()[..chunk.len()]);
        }
        bytes
    }
}

/// Writes the body of a request into the buffer it is given.
pub(crate) trait Body: Send + 'static {
    /// Appends one body.
    fn write(&mut self, buffer: &mut Vec<u8>);
}

impl<F: FnMut(&mut Vec<u8>) + Send + 'static> Body for F {
    fn write(&mut self, buffer: &mut Vec<u8>) {
        self(buffer);
    }
}

/// `POST /v1/tokenize` of a PAN that was never sent.
pub(crate) fn tokenize_new(pans: &Arc<Pans>) -> impl Body {
    let pans = Arc::clone(pans);
    move |buffer: &mut Vec<u8>| write_pan(buffer, pans.draw())
}

/// `POST /v1/tokenize` of one of the first `known` PANs.
pub(crate) fn tokenize_seen(pans: &Arc<Pans>, known: u64, mut random: Random) -> impl Body {
    let pans = Arc::clone(pans);
    move |buffer: &mut Vec<u8>| write_pan(buffer, pans.at(random.below(known)))
}

/// `POST /v1/tokenize/batch` of [`BATCH`] PANs that were never sent.
pub(crate) fn tokenize_batch(pans: &Arc<Pans>) -> impl Body {
    let pans = Arc::clone(pans);
    move |buffer: &mut Vec<u8>| {
        buffer.extend_from_slice(br#"{"items":["#);
        write_list(buffer, |buffer| write_pan(buffer, pans.draw()));
        buffer.extend_from_slice(b"]}");
    }
}

/// `POST /v1/detokenize` of one of `tokens`.
pub(crate) fn detokenize(tokens: &Arc<Vec<String>>, mut random: Random) -> impl Body {
    let tokens = Arc::clone(tokens);
    move |buffer: &mut Vec<u8>| {
        buffer.extend_from_slice(br#"{"token":""#);
        buffer.extend_from_slice(pick(&tokens, &mut random).as_bytes());
        buffer.extend_from_slice(br#""}"#);
    }
}

/// `POST /v1/detokenize` of tokens that look like any other and were never made.
pub(crate) fn detokenize_unknown(mut random: Random) -> impl Body {
    move |buffer: &mut Vec<u8>| {
        let (high, low) = (random.bits(), random.bits());
        // The bits that say "version 7" and "variant 10" (RFC 9562, 5.7).
        let high = high & !0xf000 | 0x7000;
        let low = low & !(0b11 << 62) | 0b10 << 62;
        let token = format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        );
        buffer.extend_from_slice(br#"{"token":""#);
        buffer.extend_from_slice(token.as_bytes());
        buffer.extend_from_slice(br#""}"#);
    }
}

/// `POST /v1/detokenize/batch` of [`BATCH`] of `tokens`.
pub(crate) fn detokenize_batch(tokens: &Arc<Vec<String>>, mut random: Random) -> impl Body {
    let tokens = Arc::clone(tokens);
    move |buffer: &mut Vec<u8>| {
        buffer.extend_from_slice(br#"{"tokens":["#);
        write_list(buffer, |buffer| {
            buffer.push(b'"');
            buffer.extend_from_slice(pick(&tokens, &mut random).as_bytes());
            buffer.push(b'"');
        });
        buffer.extend_from_slice(b"]}");
    }
}

fn write_list(buffer: &mut Vec<u8>, mut item: impl FnMut(&mut Vec<u8>)) {
    for index in 0..BATCH {
        if index > 0 {
            buffer.push(b',');
        }
        item(buffer);
    }
}

fn write_pan(buffer: &mut Vec<u8>, pan: u64) {
    // Writing to a `Vec` cannot fail.
    let _ = write!(buffer, r#"{{"pan":"{pan}"}}"#);
}

/// One of `tokens`; an empty text, which no server takes, if there is none.
fn pick<'a>(tokens: &'a [String], random: &mut Random) -> &'a str {
    let bound = u64::try_from(tokens.len()).unwrap_or(u64::MAX).max(1);
    let index = usize::try_from(random.below(bound)).unwrap_or_default();
    tokens.get(index).map_or("", String::as_str)
}

/// The finalizer of `SplitMix64` (Steele, Lea, Flood 2014; constants by Stafford, variant 13).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 2^64 divided by the golden ratio, odd: the increment of `SplitMix64`.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
/// Each half of a PAN's 14 permuted digits is below this.
const HALF: u64 = 10_000_000;
/// Four rounds make a Feistel network a good permutation (Luby, Rackoff 1988).
const FEISTEL_ROUNDS: u64 = 4;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn check_digits_are_those_of_known_test_cards() {
        assert_eq!(with_check_digit(411_111_111_111_111), 4_111_111_111_111_111);
        assert_eq!(with_check_digit(401_288_888_888_188), 4_012_888_888_881_881);
    }

    #[test]
    fn pans_are_distinct_and_have_16_digits() {
        let pans = Pans::new(1);
        let drawn: HashSet<u64> = (0..100_000).map(|_| pans.draw()).collect();
        assert_eq!(drawn.len(), 100_000);
        assert_eq!(pans.drawn(), 100_000);
        assert!(drawn.iter().all(|pan| pan.to_string().len() == 16 && with_check_digit(pan / 10) == *pan));
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(Pans::new(7).at(3), Pans::new(7).at(3));
        assert_ne!(Pans::new(7).at(3), Pans::new(8).at(3));
    }

    #[test]
    fn batches_are_json() {
        let mut body = Vec::new();
        tokenize_batch(&Arc::new(Pans::new(1))).write(&mut body);
        let batch: vault_api::TokenizeBatchRequest = serde_json::from_slice(&body).unwrap();
        assert_eq!(batch.items.len(), vault_api::MAX_BATCH_ITEMS);
    }
}
