//! What a run found as pictures: throughput over connections, latency over load, cost over the size of the store.

mod chart;
mod png;

use std::path::Path;

use anyhow::Result;

use self::chart::{Axis, Chart, Line, Scale};
use crate::{
    number::{float, grouped},
    run::{Findings, Sampled},
    side::Side,
    stage::{open_loop, store_sizes},
};

/// Draws what there is of `findings` into `dir`.
pub(crate) fn draw(findings: &Findings, dir: &Path) -> Result<()> {
    if let Some(sampled) = &findings.sampled {
        throughput(sampled).save(dir, "throughput")?;
        latency(sampled).save(dir, "latency")?;
    }
    store_sizes(&findings.store_sizes).save(dir, "store-size")
}

fn throughput(sampled: &Sampled) -> Chart {
    let names = [
        (Side::EmptyHandler, "empty handler"),
        (Side::DetokenizeBatch, "detokenize/batch, tokens"),
        (Side::Detokenize, "detokenize"),
        (Side::TokenizeSeen, "tokenize, seen before"),
        (Side::TokenizeBatch, "tokenize/batch, PANs"),
        (Side::TokenizeNew, "tokenize, new"),
    ];
    let line = |(side, name): (Side, &str)| {
        let curve = sampled.connections.get(&side)?;
        let points = curve.iter().map(|point| (float(point.connections), point.per_second)).collect();
        Some(Line { name: name.to_owned(), points })
    };
    let lines: Vec<_> = names.into_iter().filter_map(line).collect();
    Chart {
        title: "Throughput".to_owned(),
        x: Axis {
            name: "connections",
            scale: Scale::Logarithmic,
            ticks: vec![1.0, 4.0, 16.0, 64.0, 128.0, 256.0, 512.0],
            label: grouped,
        },
        y: from_zero("answers a second", &lines),
        lines,
    }
}

fn latency(sampled: &Sampled) -> Chart {
    let line = |(quantile, name): (f64, &str)| {
        let found = sampled.open_loop.as_ref()?;
        // Over the rate that was asked for: what was achieved is less once the vault cannot keep up.
        let place = |point: &open_loop::Point| {
            let waited = float(point.latency.value_at_quantile(quantile)) / 1e6;
            (found.peak * f64::from(point.percent) / 100.0, waited)
        };
        Some(Line { name: name.to_owned(), points: found.points.iter().map(place).collect() })
    };
    let quantiles = [(0.999, "p99.9"), (0.99, "p99"), (0.9, "p90"), (0.5, "median")];
    let lines: Vec<_> = quantiles.into_iter().filter_map(line).collect();
    let transposed: Vec<_> = lines
        .iter()
        .map(|line| Line {
            name: String::new(),
            points: line.points.iter().map(|&(rate, waited)| (waited, rate)).collect(),
        })
        .collect();
    Chart {
        title: "Latency of detokenize at fixed rates".to_owned(),
        x: from_zero("requests a second, each due at its time", &transposed),
        y: Axis { name: "milliseconds", scale: Scale::Logarithmic, ticks: decades(&lines), label: plain },
        lines,
    }
}

fn store_sizes(points: &[store_sizes::Point]) -> Chart {
    type Rate = fn(&store_sizes::Point) -> f64;
    let rates: [(Rate, &str); 3] = [
        (|point| point.tokenize_new_per_second, "tokenize, new"),
        (|point| point.tokenize_seen_per_second, "tokenize, seen before"),
        (|point| point.detokenize_per_second, "detokenize"),
    ];
    let line = |(rate, name): (Rate, &str)| {
        let place = |point: &store_sizes::Point| (float(point.tokens), 1e6 / rate(point));
        Line { name: name.to_owned(), points: points.iter().map(place).collect() }
    };
    let lines: Vec<_> = if points.is_empty() { Vec::new() } else { rates.into_iter().map(line).collect() };
    Chart {
        title: "Cost of a request as the store grows, 64 connections".to_owned(),
        x: Axis {
            name: "tokens in the store",
            scale: Scale::Logarithmic,
            ticks: points.iter().map(|point| float(point.tokens)).collect(),
            label: grouped,
        },
        y: from_zero("µs a request (1 / throughput)", &lines),
        lines,
    }
}

/// An axis from 0 to a little more than the largest value, with round labels.
fn from_zero(name: &'static str, lines: &[Line]) -> Axis {
    let most = largest(lines);
    let magnitude = 10_f64.powf((most / 5.0).log10().floor());
    // The smallest of the usual steps of which seven are enough.
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude).into_iter().find(|step| step * 7.0 >= most);
    let step = step.unwrap_or(1.0);
    let mut ticks = vec![0.0];
    while ticks.last().is_some_and(|last| *last < most) {
        ticks.extend(ticks.last().map(|last| last + step));
    }
    Axis { name, scale: Scale::Linear, ticks, label: grouped }
}

/// Powers of ten around all values.
fn decades(lines: &[Line]) -> Vec<f64> {
    let least = lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(f64::MAX, f64::min);
    let most = largest(lines);
    let mut ticks = vec![10_f64.powf(least.log10().floor())];
    while ticks.last().is_some_and(|last| *last < most && *last < MOST_MILLISECONDS) {
        ticks.extend(ticks.last().map(|last| last * 10.0));
    }
    ticks
}

fn largest(lines: &[Line]) -> f64 {
    lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max)
}

/// A power of ten without an exponent.
fn plain(value: f64) -> String {
    if value < 1.0 { format!("{}", (value * 1e6).round() / 1e6) } else { grouped(value) }
}

/// What the histogram holds.
const MOST_MILLISECONDS: f64 = 100_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(points: Vec<(f64, f64)>) -> Vec<Line> {
        vec![Line { name: "a line".to_owned(), points }]
    }

    #[test]
    fn axes_have_round_labels() {
        let ticks = |most| from_zero("", &lines(vec![(1.0, most)])).ticks;
        assert_eq!(ticks(165_000.0), [0.0, 50_000.0, 100_000.0, 150_000.0, 200_000.0]);
        assert_eq!(ticks(14.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0]);
        let labels: Vec<_> = decades(&lines(vec![(1.0, 0.02), (2.0, 30.0)])).into_iter().map(plain).collect();
        assert_eq!(labels, ["0.01", "0.1", "1", "10", "100"]);
    }

    #[test]
    fn a_plot_is_drawn_in_both_forms() {
        let dir = tempfile::tempdir().unwrap();
        let point = store_sizes::Point {
            tokens: 10_000,
            detokenize_per_second: 50_000.0,
            tokenize_seen_per_second: 40_000.0,
            tokenize_new_per_second: 10_000.0,
        };
        store_sizes(&[point, store_sizes::Point { tokens: 100_000, ..point }])
            .save(dir.path(), "plot")
            .unwrap();
        let svg = std::fs::read_to_string(dir.path().join("plot.svg")).unwrap();
        assert!(svg.contains("tokens in the store") && svg.contains("100,000"));
        assert!(std::fs::read(dir.path().join("plot.png")).unwrap().len() > 1_000);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        store_sizes(&[]).save(dir.path(), "plot").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
