//! Durations and times as people write them.

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};

/// Seconds: `90`, `90s`, `30m`, `12h`, `7d`, `4w`.
///
/// # Errors
/// What would be understood.
pub fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "use seconds, or a number with s, m, h, d or w, such as 12h".to_owned();
    let (number, factor) = match text.char_indices().last() {
        Some((place, unit)) if unit.is_ascii_alphabetic() => {
            let factor = match unit {
                's' => 1,
                'm' => 60,
                'h' => 3_600,
                'd' => 86_400,
                'w' => 604_800,
                _ => return Err(wrong()),
            };
            (text.split_at(place).0, factor)
        }
        _ => (text, 1),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

/// A moment: RFC 3339, a date or a date and time in UTC, or how long ago.
///
/// # Errors
/// What would be understood.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(ago) = seconds(text).and_then(|ago| i64::try_from(ago).map_err(|error| error.to_string())) {
        let now = Timestamp::now();
        return now
            .checked_sub(SignedDuration::from_secs(ago))
            .map_err(|_| "that is too long ago".to_owned());
    }
    let civil = text.parse::<DateTime>().ok().and_then(|time| TimeZone::UTC.to_timestamp(time).ok());
    civil.ok_or_else(|| "use 2026-01-31, 2026-01-31T12:00:00Z, or how long ago, such as 2h".to_owned())
}

/// A duration for people: its two largest units.
pub fn short(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    for (place, (size, name)) in units.iter().enumerate() {
        if seconds >= *size {
            let (smaller, smaller_name) = units.get(place + 1).unwrap_or(&(1, "s"));
            let rest = seconds % size / smaller;
            return format!("{}{name}{rest}{smaller_name}", seconds / size);
        }
    }
    format!("{seconds}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let table =
            [("90", 90), ("90s", 90), ("30m", 1_800), ("12h", 43_200), ("7d", 604_800), ("1w", 604_800)];
        for (text, expected) in table {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "h", "-1", "1.5h", "1y", "99999999999999999999", "99999999999999w", "1ü"] {
            assert!(seconds(text).is_err(), "{text}");
        }
        for (seconds, expected) in [(0, "0s"), (61, "1m1s"), (7_200, "2h0m"), (90_061, "1d1h")] {
            assert_eq!(short(seconds), expected);
        }
    }

    #[test]
    fn moments_are_absolute_or_ago() {
        let time: Timestamp = "2026-01-31T00:00:00Z".parse().unwrap();
        for text in ["2026-01-31", "2026-01-31T00:00:00", "2026-01-31T01:00:00+01:00"] {
            assert_eq!(moment(text), Ok(time), "{text}");
        }
        let then = moment("2h").unwrap();
        let ago = Timestamp::now().duration_since(then).as_secs();
        assert!((7_200..7_260).contains(&ago), "{ago}");
        for text in ["yesterday", "2026-13-01", ""] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
