//! Rates with one connection to hundreds, single requests and batches, beside the empty handler.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::{
    load::Route,
    number::median,
    run::{Run, say},
    side::Side,
    subjects::Subjects,
};

/// The rate of a side with so many connections.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) connections: u64,
    /// Requests a second; of a batch, items.
    pub(crate) per_second: f64,
}

/// A curve for each side.
pub(crate) type Curves = BTreeMap<Side, Vec<Point>>;

/// Measures all curves, interleaved.
pub(crate) fn measure(run: &Run<'_>, subjects: &Subjects) -> Result<Curves> {
    let mut rates: BTreeMap<(Side, u64), Vec<f64>> = BTreeMap::new();
    let rounds = run.options.samples_of_curves();
    for round in 1..=rounds {
        say(&format!("1 to 512 connections, round {round} of {rounds}"))?;
        let time = run.options.time();
        for (sides, numbers, time) in [
            (SINGLE.as_slice(), CONNECTIONS.as_slice(), time),
            (&BATCHES, &BATCH_CONNECTIONS, time * TIMES_FOR_BATCHES),
        ] {
            for &connections in numbers {
                for &side in sides {
                    let Some(route) = side.route() else { continue };
                    let sample =
                        subjects.sample_over(run.load, side, Route { connections, ..route }, time)?;
                    rates.entry((side, connections)).or_default().push(sample.rate);
                }
            }
        }
    }
    let mut curves = Curves::new();
    for ((side, connections), rates) in rates {
        curves.entry(side).or_default().push(Point { connections, per_second: median(&rates) });
    }
    Ok(curves)
}

const SINGLE: [Side; 4] = [Side::Detokenize, Side::EmptyHandler, Side::TokenizeSeen, Side::TokenizeNew];
const CONNECTIONS: [u64; 7] = [1, 4, 16, 64, 128, 256, 512];
const BATCHES: [Side; 2] = [Side::DetokenizeBatch, Side::TokenizeBatch];
/// How many times as long a sample of batches takes: sixteen at once that are stored together take longer than a sample.
const TIMES_FOR_BATCHES: u32 = 4;
/// More batches at once than that only wait for each other.
const BATCH_CONNECTIONS: [u64; 3] = [1, 4, 16];
