//! The load generator: a closed loop, the same for every server that is measured.
//!
//! N tasks, each with a connection of its own, each sending its next request when the answer to the last one
//! is there. A rate is what the tasks achieved together; a wrong answer fails the run instead of counting as
//! fast.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use crate::{
    connection::{Connection, Target},
    number::rate,
    payload::Body,
};

/// What a run of the generator sends, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// The path.
    pub(crate) path: &'static str,
    /// The status of a right answer.
    pub(crate) expected: u16,
    /// How many requests are on their way at once.
    pub(crate) connections: u64,
}

/// One connection of a mixed load.
pub(crate) struct Lane {
    route: Route,
    body: Box<dyn Body>,
}

impl Lane {
    /// A connection for `route`, with what `body` makes.
    pub(crate) fn new(route: Route, body: impl Body) -> Self {
        Self { route, body: Box::new(body) }
    }
}

/// What a run of the generator saw.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Requests a second.
    pub(crate) rate: f64,
    /// Nanoseconds from the first byte sent to the last one received.
    pub(crate) latency: Histogram<u64>,
}

/// The generator and its threads.
#[derive(Debug)]
pub(crate) struct Load {
    runtime: Runtime,
    interrupted: Arc<AtomicBool>,
}

impl Load {
    /// Starts the threads; from here on SIGINT and SIGTERM end the bench at the next sample, cleanly.
    pub(crate) fn new() -> Result<Self> {
        let runtime = Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        let (mut interrupt, mut terminate) = {
            let _context = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        runtime.spawn(async move {
            tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
            flag.store(true, Ordering::Relaxed);
        });
        Ok(Self { runtime, interrupted })
    }

    /// Fails when the bench was asked to end.
    pub(crate) fn check_interrupt(&self) -> Result<()> {
        ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted");
        Ok(())
    }

    /// Keeps `target` busy for `time` (and a fifth of it before, uncounted) with what `bodies` makes for each
    /// connection.
    pub(crate) fn run<B: Body>(
        &self,
        target: &Target,
        route: Route,
        time: Duration,
        bodies: impl Fn(u64) -> B,
    ) -> Result<Seen> {
        self.check_interrupt()?;
        let seen: Result<Seen> = self.runtime.block_on(async {
            let mut lanes = Vec::new();
            for lane in 0..route.connections {
                lanes.push((Connection::open(target, route.path).await?, bodies(lane)));
            }
            let begin = Instant::now() + time / 5;
            let window = Window { begin, end: begin + time };
            let mut tasks: JoinSet<_> =
                lanes.into_iter().map(|(connection, body)| drive(connection, body, route, window)).collect();
            let mut all = Seen { rate: 0.0, latency: histogram()? };
            while let Some(lane) = tasks.join_next().await {
                let lane = lane.context("a task of the load generator died")??;
                all.rate += lane.rate;
                all.latency.add(lane.latency)?;
            }
            Ok(all)
        });
        // A signal from the terminal reaches the servers too: their end is then no finding.
        self.check_interrupt()?;
        seen.with_context(|| format!("loading {} of {}", route.path, target.socket.display()))
    }

    /// Keeps `target` busy on all of `lanes` until `work` is done: nanoseconds of every request, and what `work` gives.
    pub(crate) fn run_during<T>(
        &self,
        target: &Target,
        lanes: Vec<Lane>,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(Histogram<u64>, T)> {
        let done: Result<_> = self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            let over = Arc::new(AtomicBool::new(false));
            for Lane { route, mut body } in lanes {
                let connection = Connection::open(target, route.path).await?;
                let body = move |buffer: &mut Vec<u8>| body.write(buffer);
                tasks.spawn(drive_until(connection, body, route, Arc::clone(&over)));
            }
            let given = tokio::select! {
                // Before its time, a task ends with an error only.
                Some(lane) = tasks.join_next() => {
                    lane.context("a task of the load generator died")??;
                    bail!("a task of the load generator ended too soon");
                }
                given = work => given?,
            };
            over.store(true, Ordering::Relaxed);
            let mut all = histogram()?;
            while let Some(lane) = tasks.join_next().await {
                all.add(lane.context("a task of the load generator died")??)?;
            }
            Ok((all, given))
        });
        self.check_interrupt()?;
        done.with_context(|| format!("loading {}", target.socket.display()))
    }

    /// Posts `count` requests one after the other and hands each answer to `take`.
    pub(crate) fn post_each(
        &self,
        target: &Target,
        route: Route,
        count: u64,
        mut body: impl Body,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        self.runtime.block_on(async {
            let mut connection = Connection::open(target, route.path).await?;
            for _ in 0..count {
                self.check_interrupt()?;
                take(connection.post(&mut body, route.expected).await?)?;
            }
            Ok(())
        })
    }
}

/// A histogram of nanoseconds, exact to one percent and small enough to stay in the cache.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000_000, 2).context("making a histogram")
}

/// When requests count.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

/// One task: sends until the window closes. Its clock starts with the first request inside the window and
/// stops with the answer to the last, so that long requests are not rounded to the window.
async fn drive(
    mut connection: Connection,
    mut body: impl Body,
    route: Route,
    window: Window,
) -> Result<Seen> {
    let mut latency = histogram()?;
    let mut sent = Instant::now();
    while sent < window.begin {
        connection.post(&mut body, route.expected).await?;
        sent = Instant::now();
    }
    let first = sent;
    while sent < window.end {
        connection.post(&mut body, route.expected).await?;
        let received = Instant::now();
        latency.saturating_record(u64::try_from((received - sent).as_nanos()).unwrap_or(u64::MAX));
        sent = received;
    }
    ensure!(!latency.is_empty(), "no request fits into a sample: give more --seconds");
    Ok(Seen { rate: rate(latency.len(), sent - first), latency })
}

/// One task: sends until it is `over`, and counts every request.
async fn drive_until(
    mut connection: Connection,
    mut body: impl Body,
    route: Route,
    over: Arc<AtomicBool>,
) -> Result<Histogram<u64>> {
    let mut latency = histogram()?;
    while !over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        connection.post(&mut body, route.expected).await?;
        latency.saturating_record(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(latency)
}
