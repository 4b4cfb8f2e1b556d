//! A closed loop: every connection sends as soon as it has its answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::Result;
use hdrhistogram::Histogram;

use super::{Route, Seen, histogram};
use crate::{connection::Connection, number::rate, payload::Body};

/// When requests count.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

/// One task: sends until the window closes. Its clock starts with the first request inside the window and
/// stops with the answer to the last, so that long requests are not rounded to the window.
pub(super) async fn drive(
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
    // One of hundreds may have waited all the time.
    let per_second = if latency.is_empty() { 0.0 } else { rate(latency.len(), sent - first) };
    Ok(Seen { rate: per_second, latency })
}

/// One task: sends until it is `over`, and counts every request.
pub(super) async fn drive_until(
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
