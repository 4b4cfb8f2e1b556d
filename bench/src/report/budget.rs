//! Every line of the budget, in its order.

use crate::{
    goal::{Goal, Met},
    number::{float, grouped, median},
    report::row::Row,
    run::{Findings, Sampled},
    side::{CONNECTIONS, Side},
    slow,
    stage::{memory, open_loop::OpenLoop, restarts::Restarts, rotation::Rotation},
};

/// The lines that were measured.
pub(super) fn rows(findings: &Findings) -> Vec<Row> {
    let mut rows = Vec::new();
    let sampled = findings.sampled.as_ref();
    if let Some(sampled) = sampled {
        rows.extend(rates(sampled));
        rows.extend(slow_hsm(sampled));
        rows.extend(sampled.open_loop.as_ref().and_then(at_half));
    }
    rows.extend(memory(findings));
    rows.extend(sampled.map(bytes_per_token));
    rows.extend(findings.restarts.iter().flat_map(restarts));
    rows.extend(findings.rotation.as_ref().map(rotation));
    rows
}

/// Our rates at least so many times those of the nearest peer, as it was measured elsewhere: for orientation.
pub(super) fn peer(sampled: &Sampled) -> Vec<Row> {
    let lines = [
        ("tokenize, new", Side::TokenizeNew, 2_750.0, 8.0),
        ("tokenize, seen before", Side::TokenizeSeen, 17_450.0, 4.0),
        ("detokenize", Side::Detokenize, 18_700.0, 4.0),
    ];
    let row = |(what, side, peer, times)| {
        let goal = Some(Goal::AtLeast(times));
        Row::rate(
            what,
            sampled.rounds.rate(side),
            ("peer without HSM and audit, measured elsewhere", peer),
            goal,
        )
    };
    lines.into_iter().filter_map(row).collect()
}

fn rates(sampled: &Sampled) -> impl Iterator<Item = Row> {
    let rate = |side| sampled.rounds.rate(side);
    let goal = |least| Some(Goal::AtLeast(least));
    let empty = ("empty handler", rate(Side::EmptyHandler));
    let (pair, by_1000) = (rate(Side::HsmPair), rate(Side::RedbBy1000));
    // The lower one, of both: a minimum would take the other for one that was not measured.
    let lower = if pair < by_1000 { ("HSM pairs", pair) } else { ("redb by 1,000", by_1000 + 0.0 * pair) };
    // The goal is about a store with a million tokens in it.
    let new_goal = goal(0.7).filter(|_| sampled.tokens.0 >= 1_000_000);
    let tokens = grouped(float(sampled.tokens.0));
    let connections = format!("{CONNECTIONS} connections");
    [
        Row::rate(format!("detokenize, {connections}"), rate(Side::Detokenize), empty, goal(0.45)),
        Row::rate(
            format!("tokenize, seen before, {connections}"),
            rate(Side::TokenizeSeen),
            empty,
            goal(0.4),
        ),
        Row::rate(
            format!("detokenize, durable audit, {connections}"),
            rate(Side::Detokenize),
            ("without audit", rate(Side::DetokenizeUnaudited)),
            goal(0.75),
        ),
        Row::rate(
            format!("tokenize, new, {connections}, {tokens} tokens"),
            rate(Side::TokenizeNew),
            ("redb by 64", rate(Side::RedbBy64)),
            new_goal,
        ),
        Row::rate("tokenize/batch of 1,000, per PAN", rate(Side::TokenizeBatch), lower, goal(0.6)),
        Row::rate(
            "detokenize/batch of 1,000, per token",
            rate(Side::DetokenizeBatch),
            ("HSM decrypts", rate(Side::HsmOpen)),
            goal(0.7),
        ),
    ]
    .into_iter()
    .flatten()
}

/// The vault on an HSM whose latency is the limit, unless the processor is.
fn slow_hsm(sampled: &Sampled) -> Option<Row> {
    let what = format!("detokenize, HSM of 1 ms, {} connections", slow::CONNECTIONS);
    let ceiling = format!("{} sessions / 1 ms", slow::SESSIONS);
    let rate = sampled.rounds.rate(Side::DetokenizeSlowHsm);
    let mut row = Row::rate(what, rate, (&ceiling, slow::ceiling()), Some(Goal::AtLeast(0.9)))?;
    if row.met == Some(Met::No) && sampled.rounds.slow_cpu.allows(rate) < slow::ceiling() {
        row.met = Some(Met::CpuIsLimit);
    }
    Some(row)
}

fn at_half(open_loop: &OpenLoop) -> Option<Row> {
    let half = open_loop.at_half()?;
    Some(Row::latency(
        format!("p99 at half of the peak, open loop, {}/s", grouped(half.achieved)),
        half.latency.value_at_quantile(0.99),
        ("unloaded median", open_loop.unloaded.value_at_quantile(0.5)),
        10.0,
    ))
}

fn memory(findings: &Findings) -> Vec<Row> {
    let mebibytes = |bytes| float(bytes) / 1024.0 / 1024.0;
    let line = |what: String, bytes, most| Row::limited(what, mebibytes(bytes), "MiB", most);
    let mut rows = Vec::new();
    rows.extend(findings.memory.map(|memory| line("resident memory, idle".to_owned(), memory.idle, 25.0)));
    let big = findings.restarts.as_ref();
    rows.extend(big.map(|big| line("resident memory, 10 million tokens".to_owned(), big.resident, 200.0)));
    rows.extend(findings.memory.map(|memory| {
        let what = format!("resident memory, {} connections", grouped(float(memory::CONNECTIONS)));
        line(what, memory.connected, 250.0)
    }));
    rows
}

fn bytes_per_token(sampled: &Sampled) -> Row {
    let tokens = sampled.tokens.1;
    let what = format!("store per token, compacted, {} tokens", grouped(float(tokens)));
    Row::limited(what, float(sampled.store.compacted) / float(tokens), "bytes", 250.0)
}

fn restarts(found: &Restarts) -> [Row; 2] {
    let line = |what: &str, times: &[f64], most| {
        let worst = times.iter().copied().fold(0.0, f64::max);
        Row::limited(format!("{what}, 10 million tokens (worst {worst:.2} s)"), median(times), "s", most)
    };
    [
        line("first answer after start", &found.after_stop, 0.3),
        line("first answer after kill -9", &found.after_kill, 2.0),
    ]
}

/// How much longer the slowest of a hundred callers waits while every key is rotated and every record rewrapped.
fn rotation(found: &Rotation) -> Row {
    let what = format!("p99 while keys rotate, {CONNECTIONS} connections");
    let (before, during) = (found.before.value_at_quantile(0.99), found.during.value_at_quantile(0.99));
    Row::latency(what, during, ("before it", before), 3.0)
}
