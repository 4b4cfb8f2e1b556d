//! Histograms: how often a measure fell between fixed bounds.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What a histogram measures, and the upper bounds of its buckets in rising order.
#[derive(Debug)]
pub enum Buckets {
    /// Durations; bounds in nanoseconds, shown in seconds.
    Times(&'static [u64]),
    /// Numbers of things.
    Sizes(&'static [u64]),
}

impl Buckets {
    /// From 50 µs, below which no durable write comes, to 30 s, the longest that a request may take as a rule.
    pub const TIMES: Self = Self::Times(&[
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        500_000_000,
        1_000_000_000,
        2_500_000_000,
        5_000_000_000,
        10_000_000_000,
        30_000_000_000,
    ]);
    /// Powers of two up to the most changes in a commit.
    pub const SIZES: Self = Self::Sizes(&[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096]);

    fn bounds(&self) -> &'static [u64] {
        match self {
            Self::Times(bounds) | Self::Sizes(bounds) => bounds,
        }
    }

    /// A measure as text, exactly: in seconds, or as the number it is.
    fn text(&self, measure: u64) -> String {
        const SECOND: u64 = 1_000_000_000;
        match self {
            Self::Sizes(_) => measure.to_string(),
            Self::Times(_) if measure.is_multiple_of(SECOND) => (measure / SECOND).to_string(),
            Self::Times(_) => {
                let text = format!("{}.{:09}", measure / SECOND, measure % SECOND);
                text.trim_end_matches('0').to_owned()
            }
        }
    }
}

/// Counts of measures by size. To measure costs two additions, and never waits.
#[derive(Debug)]
pub struct Histogram {
    buckets: Buckets,
    /// One for each bound, and one for what is beyond the last.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// Of durations.
impl Default for Histogram {
    fn default() -> Self {
        Self::new(Buckets::TIMES)
    }
}

impl Histogram {
    /// An empty one.
    pub fn new(buckets: Buckets) -> Self {
        let counts = std::iter::repeat_with(AtomicU64::default).take(buckets.bounds().len() + 1).collect();
        Self { buckets, counts, sum: AtomicU64::default() }
    }

    /// Of numbers of things.
    pub fn of_sizes() -> Self {
        Self::new(Buckets::SIZES)
    }

    /// Measures how long something took.
    pub fn took(&self, time: Duration) {
        self.measure(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Measures how many there were.
    pub fn size(&self, count: usize) {
        self.measure(u64::try_from(count).unwrap_or(u64::MAX));
    }

    fn measure(&self, measure: u64) {
        let place = self.buckets.bounds().partition_point(|bound| *bound < measure);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(measure, Ordering::Relaxed);
    }

    /// Whether nothing was measured yet.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    /// How many measures were at most as large as each bound (`le`), all of them (`+Inf`) at last.
    pub(super) fn cumulative(&self) -> Vec<(String, u64)> {
        let bounds = self.buckets.bounds().iter().map(|bound| self.buckets.text(*bound));
        let mut so_far = 0;
        bounds
            .chain(["+Inf".to_owned()])
            .zip(&self.counts)
            .map(|(bound, count)| {
                so_far += count.load(Ordering::Relaxed);
                (bound, so_far)
            })
            .collect()
    }

    /// All measures together, as text.
    pub(super) fn sum(&self) -> String {
        self.buckets.text(self.sum.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measure_falls_under_the_first_bound_that_is_not_smaller() {
        let sizes = Histogram::of_sizes();
        for size in [0, 1, 2, 3, 4_096, 4_097] {
            sizes.size(size);
        }
        let counted = sizes.cumulative();
        let at = |le: &str| counted.iter().find(|(bound, _)| bound == le).unwrap().1;
        assert_eq!((at("1"), at("2"), at("4"), at("2048"), at("4096"), at("+Inf")), (2, 3, 4, 4, 5, 6));
        assert_eq!(sizes.sum(), "8199");
    }

    #[test]
    fn times_are_shown_in_seconds_exactly() {
        let times = Histogram::default();
        times.took(Duration::from_micros(50));
        times.took(Duration::from_mins(2));
        let counted = times.cumulative();
        assert_eq!(counted.first().unwrap(), &("0.00005".to_owned(), 1));
        let bounds: Vec<_> = counted.iter().map(|(bound, _)| bound.as_str()).collect();
        assert_eq!(bounds[4..7], ["0.001", "0.0025", "0.005"]);
        assert_eq!(bounds[16..], ["10", "30", "+Inf"]);
        assert_eq!((counted[17].1, counted[18].1), (1, 2));
        assert_eq!(times.sum(), "120.00005");
    }
}
