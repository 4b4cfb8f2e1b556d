//! The one thread that writes the log: one write and one wait for the disk for all that is waiting.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::sync::{oneshot, watch};

use super::{
    AuditError, AuditStats,
    dir::Mark,
    line::Kind,
    log::{Line, Log},
};

/// The most lines in one group: bounds how long the first of them waits.
const MAX_GROUP: usize = 4_096;
/// How often an idle log is looked at, so that readiness knows of trouble before a caller does.
const LOOK: Duration = Duration::from_millis(500);
/// How long after a vain try to mend the log the next one is made: at least so long, and so many times as long as it took.
const MEND_PAUSE: Duration = Duration::from_millis(100);
const MEND_REST: u32 = 10;

/// What the thread is given to do.
pub(super) enum Job {
    Write(Line, Option<oneshot::Sender<Result<Mark, AuditError>>>),
    /// Look whether the log can be written.
    Probe(oneshot::Sender<Result<(), AuditError>>),
    Stop,
}

/// How far the log goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The last line that is durable.
    pub(super) last: Mark,
    /// How many lines were written that are no checkpoints.
    pub(super) others: u64,
}

/// What others see of the thread.
pub(super) struct Shared {
    usable: AtomicBool,
    trouble: Mutex<Option<String>>,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) stats: AuditStats,
}

impl Shared {
    pub(super) fn new(last: Mark) -> Self {
        let stats = AuditStats::default();
        stats.opened(last.seq, 0, 0);
        stats.usable(true);
        let progress = watch::Sender::new(Progress { last, others: 1 });
        Self { usable: AtomicBool::new(true), trouble: Mutex::default(), progress, stats }
    }

    /// Whether lines could be written when it was last tried.
    pub(super) fn usable(&self) -> Result<(), AuditError> {
        if self.usable.load(Ordering::Acquire) {
            return Ok(());
        }
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(AuditError::Unavailable(trouble.unwrap_or_else(|| "the audit log cannot be written".to_owned())))
    }

    fn see(&self, trouble: Option<&str>) {
        let mut current = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (current.as_deref(), trouble) {
            (None, Some(why)) => {
                tracing::error!(why, "the audit log cannot be written: nothing is revealed until it can");
            }
            (Some(before), Some(why)) if before != why => {
                tracing::error!(why, "the audit log still cannot be written");
            }
            (Some(_), None) => tracing::info!("the audit log can be written again"),
            _ => {}
        }
        *current = trouble.map(ToOwned::to_owned);
        self.usable.store(trouble.is_none(), Ordering::Release);
        self.stats.usable(trouble.is_none());
    }
}

/// The thread's loop; ends at [`Job::Stop`], after everything that came before it.
pub(super) fn serve(mut log: Log, jobs: &Receiver<Job>, shared: &Arc<Shared>) {
    let mut next_try = Instant::now();
    let mut stopping = false;
    while !stopping {
        let first = match jobs.recv_timeout(LOOK) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let now = Instant::now();
        if log.trouble().is_some() && now >= next_try {
            // What is wrong now is told below.
            let _ = log.mend();
            next_try = Instant::now() + MEND_PAUSE.max(now.elapsed() * MEND_REST);
        }
        let mut group = Group::default();
        for job in first.into_iter().chain(jobs.try_iter().take(MAX_GROUP)) {
            stopping |= group.add(job);
        }
        group.settle(&mut log, shared);
        shared.see(log.trouble());
    }
}

/// What was waiting.
#[derive(Default)]
struct Group {
    lines: Vec<Line>,
    answers: Vec<Option<oneshot::Sender<Result<Mark, AuditError>>>>,
    probes: Vec<oneshot::Sender<Result<(), AuditError>>>,
}

impl Group {
    /// Says whether it is the last.
    fn add(&mut self, job: Job) -> bool {
        match job {
            Job::Write(line, answer) => {
                self.lines.push(line);
                self.answers.push(answer);
                false
            }
            Job::Probe(answer) => {
                self.probes.push(answer);
                false
            }
            Job::Stop => true,
        }
    }

    fn settle(self, log: &mut Log, shared: &Arc<Shared>) {
        let started = Instant::now();
        let done = if self.lines.is_empty() { log.check() } else { log.append(&self.lines) };
        let done = done.map_err(AuditError::Unavailable);
        // Before anybody is answered: who was refused finds no service either.
        shared.see(log.trouble());
        if !self.lines.is_empty() {
            self.count(done.is_ok(), log.last(), started.elapsed(), shared);
        }
        for answer in self.answers.into_iter().flatten() {
            // Whoever has gone away is not missed.
            let _ = answer.send(done.clone().map(|()| log.last()));
        }
        for answer in self.probes {
            let _ = answer.send(done.clone());
        }
    }

    fn count(&self, is_durable: bool, last: Mark, time: Duration, shared: &Arc<Shared>) {
        if is_durable {
            shared.stats.group(self.lines.len(), last.seq, time);
            let others = self.lines.iter().filter(|line| line.kind != Kind::Checkpoint).count();
            shared.progress.send_modify(|progress| {
                progress.last = last;
                progress.others += u64::try_from(others).unwrap_or(u64::MAX);
            });
            return;
        }
        shared.stats.failed();
        let unwritten = self.answers.iter().filter(|answer| answer.is_none()).count();
        if unwritten > 0 {
            tracing::error!(entries = unwritten, "entries that nobody waits for are not in the audit log");
        }
    }
}
