//! Card numbers that look real and are nobody's.

/// A random number generator, seeded from `VAULT_TEST_SEED` if that is set, else by chance. Prints its seed.
pub fn seeded_random() -> fastrand::Rng {
    let seed = std::env::var("VAULT_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("VAULT_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// A source of distinct 16-digit PANs with a valid check digit.
pub struct Pans {
    random: fastrand::Rng,
    /// The first of the numbers without check digit it draws from, and how many they are.
    range: (u64, u64),
    used: std::collections::HashSet<u64>,
}

impl Default for Pans {
    fn default() -> Self {
        Self::new()
    }
}

impl Pans {
    /// A source with a [`seeded_random`].
    pub fn new() -> Self {
        Self::with(seeded_random())
    }

    /// A source that draws from `random`.
    pub fn with(random: fastrand::Rng) -> Self {
        Self {
            random,
            range: (400_000_000_000_000, 100_000_000_000_000),
            used: std::collections::HashSet::new(),
        }
    }

    /// A source that draws from `random`, and none of whose PANs another of the 1,000 lanes has.
    pub fn in_lane(random: fastrand::Rng, lane: u64) -> Self {
        assert!(lane < 1_000, "there are 1,000");
        let range = (400_000_000_000_000 + lane * 100_000_000_000, 100_000_000_000);
        Self { range, ..Self::with(random) }
    }

    /// The next PAN.
    pub fn next_pan(&mut self) -> String {
        loop {
            let body = self.range.0 + self.random.u64(0..self.range.1);
            if self.used.insert(body) {
                let body = body.to_string();
                let check = ('0'..='9').find(|check| luhn_valid(&format!("{body}{check}"))).unwrap();
                return format!("{body}{check}");
            }
        }
    }

    /// The next `count` PANs.
    pub fn take(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next_pan()).collect()
    }
}

/// Whether the check digit of `digits` fits.
pub fn luhn_valid(digits: &str) -> bool {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(digit - b'0')) {
            (0, value) => value,
            (_, value) if value > 4 => value * 2 - 9,
            (_, value) => value * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}
