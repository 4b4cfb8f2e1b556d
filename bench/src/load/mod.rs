//! The load generator, the same for every server that is measured.
//!
//! In a closed loop ([`closed`]) N tasks, each with a connection of its own, send their next request when the answer to
//! the last one is there: a rate is what they achieved together. In an open one ([`paced`]) requests come when they come,
//! whether the server keeps up or not: a latency is what a caller waits. A wrong answer fails the run instead of counting
//! as fast.

mod closed;
mod paced;

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
    time::sleep,
};

use self::closed::{Window, drive, drive_until};
pub(crate) use self::paced::Paced;
use crate::{
    connection::{Connection, Target},
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

/// Connections to one socket that stay open.
pub(crate) struct Door {
    /// The socket.
    pub(crate) target: Target,
    /// The method of the request that each of them sends.
    pub(crate) method: &'static str,
    /// The rest of it.
    pub(crate) route: Route,
    /// Its body.
    pub(crate) body: Box<dyn Body>,
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
            ensure!(!all.latency.is_empty(), "no request fits into a sample: give more --seconds");
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

    /// Sends `rate` requests a second to `target` for `time` (and for a fifth of it before, uncounted), each when it is due.
    pub(crate) fn run_paced<B: Body>(
        &self,
        target: &Target,
        route: Route,
        rate: f64,
        time: Duration,
        bodies: impl Fn(u64) -> B,
    ) -> Result<Paced> {
        self.check_interrupt()?;
        let seen = paced::run(target, route, rate, time, bodies);
        self.check_interrupt()?;
        seen.with_context(|| format!("loading {} of {}", route.path, target.socket.display()))
    }

    /// Asks until `target` answers rightly: the time from `begin` to that answer.
    pub(crate) fn first_answer(
        &self,
        target: &Target,
        route: Route,
        mut body: impl Body,
        begin: Instant,
    ) -> Result<Duration> {
        self.runtime.block_on(async {
            loop {
                self.check_interrupt()?;
                let asked = async {
                    let mut connection = Connection::open(target, route.path).await?;
                    connection.post(&mut body, route.expected).await.map(drop)
                };
                match asked.await {
                    Ok(()) => return Ok(begin.elapsed()),
                    Err(error) if begin.elapsed() > FIRST_ANSWER_PATIENCE => return Err(error),
                    Err(_) => sleep(FIRST_ANSWER_POLL).await,
                }
            }
        })
    }

    /// Opens the connections of each of `doors`, sends a request over each of them, and has `look` look while all of them
    /// are open.
    pub(crate) fn hold_open<T>(&self, doors: Vec<Door>, look: impl FnOnce() -> Result<T>) -> Result<T> {
        self.runtime.block_on(async {
            let mut held = Vec::new();
            for Door { target, method, route, mut body } in doors {
                let mut body = move |buffer: &mut Vec<u8>| body.write(buffer);
                for _ in 0..route.connections {
                    self.check_interrupt()?;
                    let mut connection = Connection::open_for(&target, method, route.path).await?;
                    connection.post(&mut body, route.expected).await?;
                    held.push(connection);
                }
            }
            sleep(SETTLE).await;
            look()
        })
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

/// How long a server may take to start.
const FIRST_ANSWER_PATIENCE: Duration = Duration::from_mins(1);
/// How often one that starts is asked: the timer's own resolution.
const FIRST_ANSWER_POLL: Duration = Duration::from_millis(1);
/// How long a server rests before it is looked at.
const SETTLE: Duration = Duration::from_millis(500);
