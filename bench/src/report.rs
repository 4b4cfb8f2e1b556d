//! The table, and the file with everything behind it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    Options,
    goal::{Goal, Met},
    number::{float, grouped, median, rank_test},
    rotation::Rotation,
    run::{CONNECTIONS, Findings, Side, WIDE},
    slow,
};

/// A run, ready to be read.
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    machine: String,
    run: String,
    json: Value,
    at: Timestamp,
}

/// One line of the table.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    measured: String,
    ceiling: String,
    ratio: Option<f64>,
    goal: Option<Goal>,
    met: Option<Met>,
}

impl Report {
    /// The report of `findings`.
    pub(crate) fn new(findings: &Findings, options: &Options, seed: u64) -> Self {
        let rows = rows(findings);
        let machine = &findings.machine;
        let run = json!({
            "seed": seed,
            "samples": options.samples(),
            "seconds": options.time().as_secs_f64(),
            "tokens_before": findings.tokens.0,
            "tokens_after": findings.tokens.1,
        });
        let medians: BTreeMap<_, _> =
            findings.samples.keys().map(|&side| (side, findings.rate(side))).collect();
        let at = Timestamp::now();
        Self {
            machine: format!(
                "{} cores of {}, Linux {}, {}, load {}",
                machine.cores, machine.cpu, machine.kernel, machine.filesystem, machine.load
            ),
            run: format!(
                "medians of {} samples of {} s, {} tokens at first and {} at last, --seed {seed}",
                options.samples(),
                options.time().as_secs_f64(),
                grouped(float(findings.tokens.0)),
                grouped(float(findings.tokens.1)),
            ),
            json: json!({
                "at": at.to_string(),
                "machine": machine,
                "run": run,
                "rows": rows,
                // In the order of the rounds: the n-th samples of all sides were taken together.
                "samples_per_second": findings.samples,
                "medians_per_second": medians,
                "oha_per_second": findings.oha.as_ref().map(|(vault, empty)| json!({
                    "detokenize": vault, "empty_handler": empty,
                })),
                "detokenize_latency_ns": {
                    "connections_1": percentiles(&findings.latency_alone),
                    "connections_64": percentiles(&findings.latency),
                },
                "slow_hsm_cpu_ticks": findings.slow_cpu,
                "rotation": findings.rotation.as_ref().map(rotation_json),
                "resident_bytes": { "idle": findings.resident.0, "after": findings.resident.1 },
                "store_bytes": { "closed": findings.store.closed, "compacted": findings.store.compacted },
            }),
            rows,
            at,
        }
    }

    /// Writes the table.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}\n{}\n", self.machine, self.run)?;
        let titles = ["what", "measured", "ceiling", "ratio", "goal", "met?"].map(str::to_owned);
        let lines: Vec<_> = std::iter::once(titles).chain(self.rows.iter().map(Row::cells)).collect();
        let mut widths = [0; 6];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        for (number, line) in lines.iter().enumerate() {
            let cells: Vec<_> =
                line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
            if number == 0 {
                writeln!(out, "{}", widths.map(|width| "-".repeat(width)).join("  "))?;
            }
        }
        Ok(())
    }

    /// Writes the file, named after the time, into `dir`.
    pub(crate) fn save(&self, dir: &Path) -> Result<PathBuf> {
        let file = dir.join(format!("{}.json", self.at.strftime("%Y%m%dT%H%M%SZ")));
        let text = serde_json::to_string_pretty(&self.json).context("writing the results")?;
        fs::write(&file, text + "\n").with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

fn rows(findings: &Findings) -> Vec<Row> {
    let rate = |side| findings.rate(side);
    let empty = ("empty axum handler", rate(Side::EmptyHandler));
    let (pair, by_1000) = (rate(Side::HsmPair), rate(Side::RedbBy1000));
    let lower = format!("min(HSM pair {}, redb by 1,000 {})", grouped(pair), grouped(by_1000));
    let (lower, open) = ((lower.as_str(), pair.min(by_1000)), ("HSM decrypt", rate(Side::HsmOpen)));
    let goal = |now, last| Some(Goal::AtLeast { now, last, claims_last: true });
    // The last goal of new PANs is about a store with a million tokens in it.
    let at_a_million = findings.tokens.0 >= 1_000_000;
    let new_goal = Some(Goal::AtLeast { now: 0.5, last: 0.7, claims_last: at_a_million });
    let redb = ("redb alone, by 64", rate(Side::RedbBy64));
    let unaudited = ("the same without audit", rate(Side::DetokenizeUnaudited));
    let mut rows = vec![
        Row::ratio(
            format!("detokenize, {CONNECTIONS} connections"),
            rate(Side::Detokenize),
            empty,
            goal(0.3, 0.45),
        ),
        Row::ratio(
            format!("detokenize with durable audit, {CONNECTIONS} connections"),
            rate(Side::Detokenize),
            unaudited,
            goal(0.75, 0.75),
        ),
        Row::ratio(
            format!("tokenize, seen before, {CONNECTIONS} connections"),
            rate(Side::TokenizeSeen),
            empty,
            goal(0.25, 0.4),
        ),
        Row::ratio(
            format!("tokenize, new, {CONNECTIONS} connections"),
            rate(Side::TokenizeNew),
            redb,
            new_goal,
        ),
        Row::ratio(
            "tokenize/batch of 1,000, per PAN".into(),
            rate(Side::TokenizeBatch),
            lower,
            goal(0.4, 0.6),
        ),
        Row::ratio(
            "detokenize/batch of 1,000, per token".into(),
            rate(Side::DetokenizeBatch),
            open,
            goal(0.5, 0.7),
        ),
        Row::ratio(format!("tokenize/batch, {WIDE} at once"), rate(Side::TokenizeBatchWide), lower, None),
        Row::ratio(format!("detokenize/batch, {WIDE} at once"), rate(Side::DetokenizeBatchWide), open, None),
    ];
    if let Some((vault, empty)) = &findings.oha {
        let empty = ("empty axum handler, by oha", median(empty));
        rows.push(Row::ratio("detokenize, by oha".into(), median(vault), empty, None));
    }
    // What `--only` left out is not shown, and what was measured without its ceiling is.
    rows.retain(|row| row.measured != UNMEASURED);
    if findings.has(Side::DetokenizeSlowHsm) {
        let text = findings.slow_cpu.text(rate(Side::DetokenizeSlowHsm), slow::ceiling());
        rows.extend([slow_hsm(findings), Row::fact("CPU meanwhile", text)]);
    }
    rows.extend(same_time(findings));
    if let Some(found) = &findings.rotation {
        rows.extend([
            rotation(found),
            Row::fact("p50 / p99 before it", latency(&found.before)),
            Row::fact("p50 / p99 during it", latency(&found.during)),
            Row::fact("p50 / p99 after it", latency(&found.after)),
            Row::fact("meanwhile", job(found)),
            Row::fact("requests / failed", format!("{} / 0", grouped(float(found.requests())))),
        ]);
    }
    rows.extend([
        Row::fact("detokenize, 1 connection, p50 / p99", latency(&findings.latency_alone)),
        Row::fact("detokenize, 64 connections, p50 / p99", latency(&findings.latency)),
        Row::fact("resident memory, idle / after the run", {
            let mebibytes = |bytes| float(bytes) / 1024.0 / 1024.0;
            format!("{:.1} / {:.1} MiB", mebibytes(findings.resident.0), mebibytes(findings.resident.1))
        }),
        Row::fact("store per token, as closed / compacted", {
            let per_token = |bytes| float(bytes) / float(findings.tokens.1);
            let store = findings.store;
            format!("{:.0} / {:.0} bytes", per_token(store.closed), per_token(store.compacted))
        }),
    ]);
    rows
}

impl Row {
    fn ratio(what: String, measured: f64, ceiling: (&str, f64), goal: Option<Goal>) -> Self {
        let ratio = Some(measured / ceiling.1).filter(|ratio| !ratio.is_nan());
        Self {
            what,
            measured: format!("{}/s", grouped(measured)),
            ceiling: format!("{} = {}/s", ceiling.0, grouped(ceiling.1)),
            ratio,
            goal,
            met: goal.zip(ratio).map(|(goal, ratio)| goal.judge(ratio)),
        }
    }

    /// A line for information.
    fn fact(what: &str, measured: String) -> Self {
        Self { what: what.to_owned(), measured, ceiling: "-".to_owned(), ratio: None, goal: None, met: None }
    }

    fn cells(&self) -> [String; 6] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.what.clone(),
            self.measured.clone(),
            self.ceiling.clone(),
            or_dash(self.ratio.map(|ratio| format!("{ratio:.3}"))),
            or_dash(self.goal.map(Goal::text)),
            or_dash(self.met.map(|met| met.text().to_owned())),
        ]
    }
}

/// The vault on an HSM whose latency is the limit, unless the processor is.
fn slow_hsm(findings: &Findings) -> Row {
    let what = format!("detokenize, HSM of 1 ms, {} connections", slow::CONNECTIONS);
    let ceiling = format!("{} sessions / 1 ms", slow::SESSIONS);
    let goal = Goal::AtLeast { now: 0.8, last: 0.9, claims_last: true };
    let rate = findings.rate(Side::DetokenizeSlowHsm);
    let mut row = Row::ratio(what, rate, (&ceiling, slow::ceiling()), Some(goal));
    if row.met == Some(Met::No) && findings.slow_cpu.allows(rate) < slow::ceiling() {
        row.met = Some(Met::CpuIsLimit);
    }
    row
}

/// Whether a token of another tenant is answered as fast as one that does not exist: the two samples of each round
/// side by side, and whether a rank test tells them apart at 5 %.
fn same_time(findings: &Findings) -> Option<Row> {
    let of = |side| findings.samples.get(&side);
    let (unknown, foreign) = of(Side::UnknownToken).zip(of(Side::ForeignToken))?;
    let microseconds = |samples: &[f64]| 1e6 / median(samples);
    let z = rank_test(unknown, foreign);
    let verdict = if z.abs() < 1.96 { "within noise" } else { "DIFFERENT" };
    Some(Row::fact(
        "unknown token / another tenant's, 1 connection",
        format!("{:.1} / {:.1} µs, z = {z:.2}: {verdict}", microseconds(unknown), microseconds(foreign)),
    ))
}

/// How much longer the slowest of a hundred callers waits while every key is rotated and every record rewrapped.
fn rotation(found: &Rotation) -> Row {
    let p99 = |latency: &Histogram<u64>| float(latency.value_at_quantile(0.99)) / 1_000.0;
    let (before, during) = (p99(&found.before), p99(&found.during));
    let goal = Goal::AtMost { most: 3.0 };
    Row {
        what: format!("p99 while keys rotate, {CONNECTIONS} connections"),
        measured: format!("{} µs", grouped(during)),
        ceiling: format!("before it, {} µs", grouped(before)),
        ratio: Some(during / before),
        goal: Some(goal),
        met: Some(goal.judge(during / before)),
    }
}

/// What went on beside the callers.
fn job(found: &Rotation) -> String {
    format!(
        "6 rotations in {:.1} s, {} records rewrapped in {:.1} s (at most {}/s)",
        found.rotating.as_secs_f64(),
        grouped(float(found.records)),
        found.rewrapping.as_secs_f64(),
        grouped(float(found.pace)),
    )
}

fn rotation_json(found: &Rotation) -> Value {
    json!({
        "latency_ns": {
            "before": percentiles(&found.before),
            "during": percentiles(&found.during),
            "after": percentiles(&found.after),
        },
        "records": found.records,
        "records_per_second_at_most": found.pace,
        "rotating_seconds": found.rotating.as_secs_f64(),
        "rewrapping_seconds": found.rewrapping.as_secs_f64(),
        "requests": found.requests(),
        "failed_requests": 0,
    })
}

fn latency(histogram: &Histogram<u64>) -> String {
    let microseconds = |quantile| float(histogram.value_at_quantile(quantile)) / 1_000.0;
    format!("{:.0} / {:.0} µs", microseconds(0.5), microseconds(0.99))
}

fn percentiles(histogram: &Histogram<u64>) -> Value {
    json!({
        "count": histogram.len(),
        "p50": histogram.value_at_quantile(0.5),
        "p90": histogram.value_at_quantile(0.9),
        "p99": histogram.value_at_quantile(0.99),
        "p999": histogram.value_at_quantile(0.999),
        "max": histogram.max(),
    })
}

/// The rate of a side without samples.
const UNMEASURED: &str = "NaN/s";
