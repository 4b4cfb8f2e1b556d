//! Everything that was found, for programs.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::{
    run::{Findings, Sampled},
    side::Side,
    stage::{
        alternatives::Alternatives,
        open_loop::{OpenLoop, Point},
        rotation::Rotation,
    },
};

/// All samples of `findings`.
pub(super) fn all(findings: &Findings) -> Value {
    json!({
        "machine": findings.machine,
        "sampled": findings.sampled.as_ref().map(sampled),
        "store_sizes": findings.store_sizes,
        "ten_million_tokens": {
            "seconds_to_first_answer": findings.restarts.as_ref().map(|found| json!({
                "after_stop": found.after_stop, "after_kill": found.after_kill,
            })),
            "resident_bytes": findings.restarts.as_ref().map(|found| found.resident),
            "store_bytes": findings.big_store,
        },
        "resident_bytes": findings.memory.map(|memory| json!({
            "idle": memory.idle, "ten_thousand_connections": memory.connected,
        })),
        "rotation": findings.rotation.as_ref().map(rotation),
    })
}

fn sampled(found: &Sampled) -> Value {
    let rounds = &found.rounds;
    let medians: BTreeMap<Side, f64> = rounds.samples.keys().map(|&side| (side, rounds.rate(side))).collect();
    json!({
        "tokens": { "before": found.tokens.0, "after": found.tokens.1 },
        // In the order of the rounds: the n-th samples of all sides were taken together.
        "samples_per_second": rounds.samples,
        "medians_per_second": medians,
        "oha_per_second": rounds.oha,
        "latency_ns": {
            "connections_1": percentiles(&rounds.latency_alone),
            "connections_64": percentiles(&rounds.latency),
        },
        "slow_hsm_cpu_ticks": rounds.slow_cpu,
        "connections": found.connections,
        "open_loop": found.open_loop.as_ref().map(open_loop),
        "alternatives_per_second": found.alternatives.as_ref().map(alternatives),
        "store_bytes": found.store,
        "resident_bytes": found.resident,
    })
}

fn open_loop(found: &OpenLoop) -> Value {
    let point = |point: &Point| {
        json!({
            "percent_of_peak": point.percent,
            "per_second": point.achieved,
            "latency_ns": percentiles(&point.latency),
        })
    };
    let points: Vec<_> = found.points.iter().map(point).collect();
    json!({
        "peak_per_second": found.peak,
        "unloaded_latency_ns": percentiles(&found.unloaded),
        "disk_alone_latency_ns": percentiles(&found.disk),
        "points": points,
    })
}

fn alternatives(found: &Alternatives) -> Value {
    let samples = |[new, seen, read]: &[Vec<f64>; 3]| json!({ "new": new, "seen": seen, "read": read });
    let rivals = found.rivals.iter().map(|(name, rival)| {
        let value = rival.as_ref().map_or_else(|why| json!({ "not_measured": why }), samples);
        ((*name).to_owned(), value)
    });
    json!({ "vault": samples(&found.vault), "rivals": rivals.collect::<serde_json::Map<_, _>>() })
}

fn rotation(found: &Rotation) -> Value {
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
