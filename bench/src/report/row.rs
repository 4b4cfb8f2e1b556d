//! The table's lines.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    goal::{Goal, Met},
    number::{float, grouped},
};

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    what: String,
    measured: String,
    /// What it is compared with.
    against: String,
    ratio: Option<f64>,
    goal: Option<Goal>,
    /// The goal in words, where it is no ratio.
    limit: Option<String>,
    pub(super) met: Option<Met>,
}

impl Row {
    /// A rate beside another; none if it was not measured.
    pub(super) fn rate(
        what: impl Into<String>,
        rate: f64,
        against: (&str, f64),
        goal: Option<Goal>,
    ) -> Option<Self> {
        let (name, ceiling) = against;
        if rate.is_nan() {
            return None;
        }
        let measured = format!("{}/s", grouped(rate));
        if ceiling.is_nan() {
            return Some(Self { measured, ..Self::fact(what, "") });
        }
        let against = format!("{name}, {}/s", grouped(ceiling));
        Some(Self { measured, against, ..Self::of_ratio(what, rate / ceiling, goal) })
    }

    /// A latency beside another, in nanoseconds, of which it may be so many times as long.
    pub(super) fn latency(
        what: impl Into<String>,
        nanoseconds: u64,
        against: (&str, u64),
        most: f64,
    ) -> Self {
        let (name, other) = against;
        let microseconds = |nanoseconds| format!("{} µs", grouped(float(nanoseconds) / 1_000.0));
        Self {
            measured: microseconds(nanoseconds),
            against: format!("{name}, {}", microseconds(other)),
            ..Self::of_ratio(what, float(nanoseconds) / float(other), Some(Goal::AtMost(most)))
        }
    }

    /// A figure that has a limit of its own.
    pub(super) fn limited(what: impl Into<String>, figure: f64, unit: &str, most: f64) -> Self {
        let digits = if figure < 10.0 { 2 } else { usize::from(figure < 100.0) };
        Self {
            measured: format!("{figure:.digits$} {unit}"),
            limit: Some(format!("≤ {most} {unit}")),
            ..Self::of_ratio(what, figure / most, Some(Goal::AtMost(1.0)))
        }
    }

    /// A line for information.
    pub(super) fn fact(what: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            measured: measured.into(),
            against: "-".to_owned(),
            ratio: None,
            goal: None,
            limit: None,
            met: None,
        }
    }

    fn of_ratio(what: impl Into<String>, ratio: f64, goal: Option<Goal>) -> Self {
        let met = goal.map(|goal| goal.judge(ratio));
        Self { ratio: Some(ratio), goal, met, ..Self::fact(what, "") }
    }

    fn cells(&self) -> [String; 6] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.what.clone(),
            self.measured.clone(),
            self.against.clone(),
            or_dash(self.ratio.map(|ratio| format!("{ratio:.2}"))),
            or_dash(self.limit.clone().or(self.goal.map(Goal::text))),
            or_dash(self.met.map(|met| met.text().to_owned())),
        ]
    }
}

/// Writes `rows` as a table in Markdown, which is as well to be read on a terminal.
pub(super) fn print(out: &mut impl Write, title: &str, rows: &[Row]) -> io::Result<()> {
    let titles = [title, "measured", "beside", "ratio", "goal", "met"].map(str::to_owned);
    let lines: Vec<_> = std::iter::once(titles).chain(rows.iter().map(Row::cells)).collect();
    let mut widths = [3; 6];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<_> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "| {} |", cells.join(" | "))?;
        if number == 0 {
            writeln!(out, "|{}|", widths.map(|width| "-".repeat(width + 2)).join("|"))?;
        }
    }
    writeln!(out)
}

/// Two percentiles in words.
pub(super) fn p50_and_p99(latency: &Histogram<u64>) -> String {
    let microseconds = |quantile| grouped(float(latency.value_at_quantile(quantile)) / 1_000.0);
    format!("{} / {} µs", microseconds(0.5), microseconds(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let goal = Some(Goal::AtLeast(0.45));
        let cells = |row: Option<Row>| row.unwrap().cells().join(" | ");
        assert!(Row::rate("x", f64::NAN, ("y", 1.0), goal).is_none());
        assert_eq!(
            cells(Row::rate("x", 50.0, ("y", 100.0), goal)),
            "x | 50/s | y, 100/s | 0.50 | ≥ 0.45 | yes"
        );
        assert_eq!(cells(Row::rate("x", 50.0, ("y", f64::NAN), goal)), "x | 50/s | - | - | - | -");
        assert_eq!(
            Row::limited("x", 30.0, "MiB", 25.0).cells().join(" | "),
            "x | 30.0 MiB | - | 1.20 | ≤ 25 MiB | NO"
        );
        let row = Row::latency("x", 3_000_000, ("y", 300_000), 10.0);
        assert_eq!(row.cells().join(" | "), "x | 3,000 µs | y, 300 µs | 10.00 | ≤ 10.00 | yes");
    }
}
