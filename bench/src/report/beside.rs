//! What is worth knowing besides the budget.

use crate::{
    number::{float, grouped, median, rank_test},
    report::row::{Row, p50_and_p99},
    run::{Findings, Sampled},
    side::{CONNECTIONS, Side, WIDE},
    slow,
    stage::{alternatives::Alternatives, open_loop::OpenLoop, rotation::Rotation, rounds::Rounds},
    vault::StoreSize,
};

/// The lines that were measured.
pub(super) fn rows(findings: &Findings) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(sampled) = &findings.sampled {
        rows.extend(batches(&sampled.rounds));
        rows.extend(oha(&sampled.rounds));
        rows.extend(cpu(&sampled.rounds));
        rows.extend(latencies(sampled));
        rows.extend(sampled.open_loop.iter().flat_map(open_loop));
        rows.extend(same_time(&sampled.rounds));
        let resident = float(sampled.resident) / 1024.0 / 1024.0;
        rows.push(Row::fact("resident memory after the samples", format!("{resident:.0} MiB")));
        rows.push(bytes_per_token("the store that was sampled", sampled.store, sampled.tokens.1));
    }
    if let Some(store) = findings.big_store {
        rows.push(bytes_per_token("the store of 10 million", store, crate::stage::restarts::RECORDS));
    }
    rows.extend(findings.store_sizes.iter().map(|point| {
        let rate = grouped;
        Row::fact(
            format!("{} tokens: detokenize, seen, new", grouped(float(point.tokens))),
            format!(
                "{}/s, {}/s, {}/s",
                rate(point.detokenize_per_second),
                rate(point.tokenize_seen_per_second),
                rate(point.tokenize_new_per_second)
            ),
        )
    }));
    rows.extend(findings.rotation.iter().flat_map(rotation));
    rows
}

/// The vault beside what a user might take instead.
pub(super) fn alternatives(found: &Alternatives) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, rival) in &found.rivals {
        let Ok(rival) = rival else {
            rows.push(Row::fact(*name, "not installed"));
            continue;
        };
        for ((what, ours), theirs) in
            ["new cards", "known cards", "reads"].into_iter().zip(&found.vault).zip(rival)
        {
            let what = format!("{what}, beside {name}");
            rows.extend(Row::rate(what, median(ours), (name, median(theirs)), None));
        }
    }
    rows
}

fn batches(rounds: &Rounds) -> impl Iterator<Item = Row> {
    let line =
        |what, side| Row::rate(format!("{what}, {WIDE} at once"), rounds.rate(side), ("", f64::NAN), None);
    [line("tokenize/batch", Side::TokenizeBatchWide), line("detokenize/batch", Side::DetokenizeBatchWide)]
        .into_iter()
        .flatten()
}

/// The same ratio by a load generator that is not ours.
fn oha(rounds: &Rounds) -> Option<Row> {
    let (vault, empty): (Vec<_>, Vec<_>) = rounds.oha.iter().copied().unzip();
    Row::rate("detokenize, by oha", median(&vault), ("empty handler, by oha", median(&empty)), None)
}

fn cpu(rounds: &Rounds) -> Option<Row> {
    let rate = rounds.rate(Side::DetokenizeSlowHsm);
    let text = rounds.slow_cpu.text(rate, slow::ceiling());
    (!rate.is_nan()).then(|| Row::fact("CPU with an HSM of 1 ms", text))
}

fn latencies(sampled: &Sampled) -> impl Iterator<Item = Row> {
    let rounds = &sampled.rounds;
    let line = |connections, latency: &hdrhistogram::Histogram<u64>| {
        (!latency.is_empty())
            .then(|| Row::fact(format!("detokenize, {connections}, p50 / p99"), p50_and_p99(latency)))
    };
    let many = format!("{CONNECTIONS} connections");
    [line("1 connection".to_owned(), &rounds.latency_alone), line(many, &rounds.latency)]
        .into_iter()
        .flatten()
}

fn open_loop(found: &OpenLoop) -> Vec<Row> {
    let line = |point: &crate::stage::open_loop::Point| {
        let what = format!("open loop at {} % of the peak, p50 / p99", point.percent);
        Row::fact(what, format!("{} at {}/s", p50_and_p99(&point.latency), grouped(point.achieved)))
    };
    let disk = Row::fact("the same for the disk alone, at 50 %, p50 / p99", p50_and_p99(&found.disk));
    found.points.iter().map(line).chain([disk]).collect()
}

/// Whether a token of another tenant is answered as fast as one that does not exist: the two samples of each round
/// side by side, and whether a rank test tells them apart at 5 %.
fn same_time(rounds: &Rounds) -> Option<Row> {
    let of = |side| rounds.samples.get(&side);
    let (unknown, foreign) = of(Side::UnknownToken).zip(of(Side::ForeignToken))?;
    let microseconds = |samples: &[f64]| 1e6 / median(samples);
    let z = rank_test(unknown, foreign);
    let verdict = if z.abs() < 1.96 { "within noise" } else { "DIFFERENT" };
    Some(Row::fact(
        "unknown token / another tenant's, 1 connection",
        format!("{:.1} / {:.1} µs, z = {z:.2}: {verdict}", microseconds(unknown), microseconds(foreign)),
    ))
}

fn bytes_per_token(what: &str, store: StoreSize, tokens: u64) -> Row {
    let per_token = |bytes| float(bytes) / float(tokens);
    let (closed, compacted) = (per_token(store.closed), per_token(store.compacted));
    Row::fact(
        format!("bytes per token of {what}, as closed / compacted"),
        format!("{closed:.0} / {compacted:.0}"),
    )
}

/// What went on beside the callers.
fn rotation(found: &Rotation) -> [Row; 3] {
    let job = format!(
        "6 rotations in {:.1} s, {} records rewrapped in {:.1} s (at most {}/s)",
        found.rotating.as_secs_f64(),
        grouped(float(found.records)),
        found.rewrapping.as_secs_f64(),
        grouped(float(found.pace)),
    );
    let during = format!("{} during it, {} after it", p50_and_p99(&found.during), p50_and_p99(&found.after));
    [
        Row::fact("keys rotate, p50 / p99", during),
        Row::fact("meanwhile", job),
        Row::fact("requests / failed meanwhile", format!("{} / 0", grouped(float(found.requests())))),
    ]
}
