//! What a caller waits who comes at a fixed rate, up to near the most that the vault can do.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use crate::{
    ceiling::Disk,
    load::{Paced, Route, histogram},
    number::median,
    payload::{self, Random},
    run::{Run, say},
    side::Side,
    subjects::Subjects,
};

/// Latencies of a detokenize at several rates.
#[derive(Debug)]
pub(crate) struct OpenLoop {
    /// Requests a second in a closed loop, with the budget's number of connections.
    pub(crate) peak: f64,
    /// Nanoseconds of a request while there is no other.
    pub(crate) unloaded: Histogram<u64>,
    pub(crate) points: Vec<Point>,
    /// Nanoseconds that callers at half of the peak would wait for nothing but the disk.
    pub(crate) disk: Histogram<u64>,
}

/// Latencies at one rate.
#[derive(Debug)]
pub(crate) struct Point {
    /// The wanted rate, in hundredths of the peak.
    pub(crate) percent: u32,
    /// Requests a second that were answered.
    pub(crate) achieved: f64,
    /// Nanoseconds from the time at which a request was due.
    pub(crate) latency: Histogram<u64>,
}

impl OpenLoop {
    /// Latencies at half of the peak.
    pub(crate) fn at_half(&self) -> Option<&Point> {
        self.points.iter().find(|point| point.percent == 50)
    }
}

/// Measures all rates, in rounds; each with the peak and the unloaded latency beside it.
pub(crate) fn measure(run: &Run<'_>, subjects: &mut Subjects) -> Result<OpenLoop> {
    let route = Side::Detokenize.route().context("a detokenize is a request")?;
    let (mut unloaded, mut disk_alone, mut peaks) = (histogram()?, histogram()?, Vec::new());
    let mut disk = Disk::create(run.dir)?;
    let mut points: Vec<(u32, Vec<Paced>)> = PERCENT.map(|percent| (percent, Vec::new())).into();
    let rounds = run.options.samples_of_curves();
    let time = run.options.pick(SHORT, LONG, LONG);
    for round in 1..=rounds {
        say(&format!("latency at fixed rates, round {round} of {rounds}"))?;
        unloaded.add(subjects.sample(run.load, Side::DetokenizeAlone)?.latency.context("no latency")?)?;
        peaks.push(subjects.sample(run.load, Side::Detokenize)?.rate);
        let interval = Duration::from_secs_f64(2.0 / median(&peaks));
        disk_alone.add(disk.sample(time, interval)?)?;
        for (percent, seen) in &mut points {
            let wanted = median(&peaks) * f64::from(*percent) / 100.0;
            let bodies = |lane| payload::detokenize(&subjects.tokens, Random::new(subjects.choice(), lane));
            let route = Route { connections: LANES, ..route };
            let paced = run.load.run_paced(&subjects.target, route, wanted, time, bodies);
            seen.push(paced.map_err(|error| subjects.vault.explain(error))?);
        }
    }
    let points = points.into_iter().map(|(percent, seen)| Point::of(percent, seen)).collect::<Result<_>>()?;
    Ok(OpenLoop { peak: median(&peaks), unloaded, points, disk: disk_alone })
}

impl Point {
    fn of(percent: u32, seen: Vec<Paced>) -> Result<Self> {
        let achieved = median(&seen.iter().map(|paced| paced.achieved).collect::<Vec<_>>());
        let mut latency = histogram()?;
        for paced in seen {
            latency.add(paced.latency)?;
        }
        Ok(Self { percent, achieved, latency })
    }
}

/// Hundredths of the peak.
const PERCENT: [u32; 7] = [5, 10, 25, 50, 70, 80, 90];
/// Enough that a request rarely waits for a connection: if it does, that is counted.
const LANES: u64 = 256;
/// How long a rate is kept up.
const LONG: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(500);
