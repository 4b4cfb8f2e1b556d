//! An open loop: requests are due at fixed times, and each is measured from the time at which it was due.
//!
//! A generator that waits for an answer before it sends again asks less of a server that stalls, and never sees what those
//! would have waited who come in the meantime (coordinated omission). Here a request that cannot be sent in time, because
//! every connection waits for an answer, has its waiting counted.

use std::{
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::{io::AsyncReadExt as _, net::unix::pipe, runtime::Builder, sync::Semaphore, task::JoinSet};

use super::{Route, histogram};
use crate::{
    connection::{Connection, Target},
    number::{count, float, rate},
    payload::Body,
};

/// What callers saw who came at a fixed rate.
#[derive(Debug)]
pub(crate) struct Paced {
    /// Requests a second that were answered.
    pub(crate) achieved: f64,
    /// Nanoseconds from the time at which a request was due to the last byte of its answer.
    pub(crate) latency: Histogram<u64>,
}

/// When requests are due. Each time is reckoned from the beginning, so that it never drifts.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    begin: Instant,
    /// Requests a second.
    rate: f64,
    /// Requests before those that count.
    uncounted: u64,
    /// Requests in all.
    all: u64,
}

impl Schedule {
    fn new(begin: Instant, rate: f64, time: Duration) -> Self {
        let counted = count(rate * time.as_secs_f64()).max(1);
        let uncounted = counted / 5;
        Self { begin, rate, uncounted, all: uncounted + counted }
    }

    /// When the request `index` is due.
    fn due(&self, index: u64) -> Instant {
        self.begin + Duration::from_secs_f64(float(index) / self.rate)
    }

    /// How many are due by `now`.
    fn due_by(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.begin).as_secs_f64();
        (count(since * self.rate) + 1).min(self.all)
    }
}

/// Sends with `route.connections` connections, of which whichever is free takes the next request.
///
/// On one thread of its own: tasks that wake each other across threads would cost the server the processor's time.
pub(super) fn run<B: Body>(
    target: &Target,
    route: Route,
    wanted: f64,
    time: Duration,
    bodies: impl Fn(u64) -> B,
) -> Result<Paced> {
    let runtime = Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    runtime.block_on(async {
        let mut lanes = Vec::new();
        for lane in 0..route.connections {
            lanes.push((Connection::open(target, route.path).await?, bodies(lane)));
        }
        let schedule = Schedule::new(Instant::now() + LEAD, wanted, time);
        let (gate, next) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
        let mut tasks: JoinSet<_> = lanes
            .into_iter()
            .map(|(connection, body)| {
                let lane = Lane { connection, body, route, schedule };
                lane.drive(Arc::clone(&gate), Arc::clone(&next))
            })
            .collect();
        open_in_time(&gate, schedule).await?;
        // Each lane ends when it is let in and nothing is left.
        gate.add_permits(usize::try_from(route.connections)?);
        let mut latency = histogram()?;
        while let Some(lane) = tasks.join_next().await {
            latency.add(lane.context("a task of the load generator died")??)?;
        }
        let took = schedule.due(schedule.uncounted).elapsed();
        Ok(Paced { achieved: rate(latency.len(), took), latency })
    })
}

/// Lets requests through `gate` when they are due, or up to [`TICK`] later, which counts as waiting like any other: a timer
/// for each would cost half a processor at 18,000 a second, and the server shares it.
async fn open_in_time(gate: &Semaphore, schedule: Schedule) -> Result<()> {
    // Tokio's own timers have a resolution of a millisecond, in which dozens of requests are due. One of the kernel's is
    // read as a pipe is: whatever can be waited for and read is taken for one.
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).context("making a timer")?;
    let mut fired = pipe::Receiver::from_owned_fd_unchecked(timer.as_fd().try_clone_to_owned()?)?;
    let mut opened = 0;
    while opened < schedule.all {
        let now = Instant::now();
        let due = if now < schedule.begin { 0 } else { schedule.due_by(now) };
        if due > opened {
            gate.add_permits(usize::try_from(due - opened)?);
            opened = due;
            continue;
        }
        let rest = schedule.due(opened).saturating_duration_since(now).max(TICK);
        timer.set(Expiration::OneShot(rest.into()), TimerSetTimeFlags::empty()).context("setting a timer")?;
        fired.read_u64_le().await.context("waiting for a timer")?;
    }
    Ok(())
}

struct Lane<B> {
    connection: Connection,
    body: B,
    route: Route,
    schedule: Schedule,
}

impl<B: Body> Lane<B> {
    async fn drive(mut self, gate: Arc<Semaphore>, next: Arc<AtomicU64>) -> Result<Histogram<u64>> {
        let mut latency = histogram()?;
        loop {
            gate.acquire().await?.forget();
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= self.schedule.all {
                return Ok(latency);
            }
            self.connection.post(&mut self.body, self.route.expected).await?;
            if index >= self.schedule.uncounted {
                let waited = self.schedule.due(index).elapsed();
                latency.saturating_record(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX));
            }
        }
    }
}

/// The least time between two looks at what is due.
const TICK: Duration = Duration::from_micros(200);
/// Between the last connection and the first request.
const LEAD: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_fixed_times() {
        let begin = Instant::now();
        let schedule = Schedule::new(begin, 1_000.0, Duration::from_secs(5));
        assert_eq!((schedule.uncounted, schedule.all), (1_000, 6_000));
        assert_eq!(schedule.due(0), begin);
        assert_eq!(schedule.due(2_500) - begin, Duration::from_millis(2_500));
        for index in [0, 1, 999, 5_000] {
            assert_eq!(schedule.due_by(schedule.due(index) + Duration::from_nanos(10)), index + 1);
        }
        assert_eq!(schedule.due_by(begin + Duration::from_mins(1)), 6_000);
    }

    #[test]
    fn a_stall_is_counted_for_all_who_came_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target { socket: dir.path().join("s"), jwt: None };
        let socket = target.socket.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || stalling_server(&socket, &ready));
        is_ready.recv().unwrap();
        let route = Route { path: "/", expected: 200, connections: 1 };
        let seen =
            run(&target, route, 1_000.0, Duration::from_millis(500), |_| |_: &mut Vec<u8>| {}).unwrap();
        assert_eq!(seen.latency.len(), 500);
        // The server stalls once for 300 ms: that is one slow request of 500 in a closed loop, and 300 in an open one,
        // half of which wait for more than 150 ms.
        assert!(
            seen.latency.value_at_quantile(0.75) > 100_000_000,
            "{:?}",
            seen.latency.value_at_quantile(0.75)
        );
    }

    /// Answers every request, but stalls in the middle.
    fn stalling_server(socket: &std::path::Path, ready: &std::sync::mpsc::Sender<()>) {
        use std::io::{Read as _, Write as _};
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4_096];
        for number in 0.. {
            if stream.read(&mut buffer).unwrap() == 0 {
                return;
            }
            if number == 200 {
                std::thread::sleep(Duration::from_millis(300));
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        }
    }
}
