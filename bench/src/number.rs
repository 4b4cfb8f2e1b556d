//! Arithmetic on measurements.

use std::time::Duration;

/// `count` as a floating-point number.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "counts here are far below 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// The whole part of a number that is neither negative nor large.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and numbers here are far below 2^53"
)]
pub(crate) fn count(number: f64) -> u64 {
    number as u64
}

/// How many a second.
pub(crate) fn rate(count: u64, elapsed: Duration) -> f64 {
    float(count) / elapsed.as_secs_f64()
}

/// The middle of `values`, or the mean of the two in the middle; NaN for none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The standard score of how often a value of `left` exceeds one of `right` (Mann and Whitney, 1947).
pub(crate) fn rank_test(left: &[f64], right: &[f64]) -> f64 {
    let wins: f64 = left
        .iter()
        .flat_map(|l| {
            right.iter().map(move |r| {
                if l > r {
                    1.0
                } else if l < r {
                    0.0
                } else {
                    0.5
                }
            })
        })
        .sum();
    let count = |samples: &[f64]| f64::from(u32::try_from(samples.len()).unwrap_or(u32::MAX));
    let (n, m) = (count(left), count(right));
    (wins - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt()
}

/// A whole number with commas between thousands.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_rank_test_tells_what_differs_from_what_does_not() {
        let low: Vec<_> = (0..9).map(f64::from).collect();
        let high: Vec<_> = (100..109).map(f64::from).collect();
        assert!(rank_test(&low, &low).abs() < 1e-9);
        assert!(rank_test(&low, &high) < -3.0 && rank_test(&high, &low) > 3.0);
    }

    #[test]
    fn thousands_are_grouped() {
        for (value, text) in [(7.4, "7"), (999.0, "999"), (1000.0, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
    }
}
