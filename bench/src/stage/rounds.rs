//! The ratios: every side is sampled in turn, round after round.
//!
//! A side is sampled right beside its ceiling, in short samples, and every second round goes backwards: a machine that
//! slows down or speeds up in the meantime hits both.

use std::collections::BTreeMap;

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::{
    cpu::Ticks,
    load::histogram,
    number::median,
    run::{Run, say},
    side::Side,
    subjects::Subjects,
};

/// What the rounds found.
#[derive(Debug)]
pub(crate) struct Rounds {
    /// Every sample of every side, as a rate.
    pub(crate) samples: BTreeMap<Side, Vec<f64>>,
    /// Nanoseconds of a detokenize with many connections.
    pub(crate) latency: Histogram<u64>,
    /// Nanoseconds of a detokenize with one connection.
    pub(crate) latency_alone: Histogram<u64>,
    /// Who had the processor during [`Side::DetokenizeSlowHsm`].
    pub(crate) slow_cpu: Ticks,
    /// The vault's and the empty handler's detokenize by oha.
    pub(crate) oha: Vec<(f64, f64)>,
}

impl Rounds {
    /// The median of the samples of `side`; NaN if it was not measured.
    pub(crate) fn rate(&self, side: Side) -> f64 {
        self.samples.get(&side).map_or(f64::NAN, |samples| median(samples))
    }
}

/// Samples every side that `run` wants.
pub(crate) fn measure(run: &Run<'_>, subjects: &mut Subjects) -> Result<Rounds> {
    let mut found = Rounds {
        samples: BTreeMap::new(),
        latency: histogram()?,
        latency_alone: histogram()?,
        slow_cpu: Ticks::default(),
        oha: Vec::new(),
    };
    let mut order: Vec<_> = Side::sampled().filter(|side| run.options.wants(*side)).collect();
    if order.is_empty() {
        return Ok(found);
    }
    for round in 1..=run.options.samples() {
        say(&format!("round {round} of {}", run.options.samples()))?;
        for &side in &order {
            let sample = subjects.sample(run.load, side)?;
            found.samples.entry(side).or_default().push(sample.rate);
            match (side, sample.latency) {
                (Side::Detokenize, Some(latency)) => found.latency.add(latency)?,
                (Side::DetokenizeAlone, Some(latency)) => found.latency_alone.add(latency)?,
                _ => {}
            }
            found.slow_cpu += sample.cpu.unwrap_or_default();
        }
        found.oha.extend(subjects.sample_with_oha(run.load)?);
        order.reverse();
    }
    Ok(found)
}
