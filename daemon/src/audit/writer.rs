//! The one thread that writes the log: one write and one wait for the disk for all that is waiting.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    AuditError, AuditStats, PATIENCE,
    dir::Mark,
    gather::Bell,
    line::Kind,
    log::{Line, Log},
};

/// The most lines in one group: bounds how long the first of them waits.
const MAX_GROUP: usize = 4_096;
/// How often an idle log is looked at, so that readiness knows of trouble before a caller does.
const LOOK: Duration = Duration::from_millis(500);
/// A group waits for enough entries for as long as the last one took to the disk, which makes nobody's wait more than twice as
/// long; and for no longer than this.
const MOST_GATHERED: Duration = Duration::from_millis(1);
/// How long after a vain try to mend the log the next one is made: at least so long, and so many times as long as it took.
const MEND_PAUSE: Duration = Duration::from_millis(100);
const MEND_REST: u32 = 10;
/// The most lines that are kept while the log cannot be written. Requests are refused before they do anything then, so
/// that only those that had begun and a few events come to it.
const MOST_OWED: usize = 100_000;

/// What the thread is given to do.
pub(super) enum Job {
    Write(Line, Option<oneshot::Sender<Result<Mark, AuditError>>>),
    /// Look whether the log can be written.
    Probe(oneshot::Sender<Result<(), AuditError>>),
    /// The same, and try to mend it if it cannot, however short ago that was tried.
    Retry(oneshot::Sender<Result<(), AuditError>>),
    Stop,
}

/// The way to the thread.
pub(super) struct Queue {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

impl Queue {
    pub(super) fn new(jobs: Sender<Job>, shared: Arc<Shared>) -> Self {
        Self { jobs, shared }
    }

    /// How many jobs wait.
    pub(super) fn waiting(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn hand_over(&self, job: Job) -> Result<(), AuditError> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => AuditError::Busy,
            TrySendError::Disconnected(_) => ended(),
        })?;
        self.shared.bell.ring(self.waiting());
        Ok(())
    }

    /// Hands `job` over and waits for its answer, if not for ever.
    pub(super) async fn ask<T>(
        &self,
        job: Job,
        answer: oneshot::Receiver<Result<T, AuditError>>,
    ) -> Result<T, AuditError> {
        self.hand_over(job)?;
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(ended())),
            Err(_) => Err(AuditError::Late),
        }
    }

    /// Has the thread end after what is waiting. Blocks while there is no room.
    pub(super) fn end(&self) {
        let _ = self.jobs.send(Job::Stop);
        self.shared.bell.ring(usize::MAX);
    }
}

pub(super) fn ended() -> AuditError {
    AuditError::Unavailable("the audit log's thread has ended".to_owned())
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
    pub(super) bell: Bell,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) stats: AuditStats,
}

impl Shared {
    pub(super) fn new(last: Mark) -> Self {
        let stats = AuditStats::default();
        stats.opened(last.seq, 0, 0);
        stats.usable(true);
        let progress = watch::Sender::new(Progress { last, others: 1 });
        Self { usable: AtomicBool::new(true), trouble: Mutex::default(), bell: Bell::new(), progress, stats }
    }

    /// Whether lines could be written when it was last tried.
    pub(super) fn usable(&self) -> Result<(), AuditError> {
        if self.usable.load(Ordering::Acquire) {
            return Ok(());
        }
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Err(AuditError::Unavailable(trouble.unwrap_or_else(|| "the audit log cannot be written".to_owned())))
    }

    /// A group of `lines` is durable, of which `others` are no checkpoints.
    fn written(&self, lines: usize, others: usize, last: Mark, time: Duration) {
        self.stats.group(lines, last.seq, time);
        self.progress.send_modify(|progress| {
            progress.last = last;
            progress.others += u64::try_from(others).unwrap_or(u64::MAX);
        });
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
    // What was done and could not be told, to be told first when it can be.
    let mut owed = Vec::new();
    let (mut stopping, mut gather) = (false, Duration::ZERO);
    while !stopping {
        shared.bell.wait(1, LOOK, || jobs.len());
        shared.bell.wait(shared.bell.enough(), gather, || jobs.len());
        let first = match jobs.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => break,
        };
        let mut group = Group::default();
        for job in first.into_iter().chain(jobs.try_iter().take(MAX_GROUP)) {
            group.add(job);
        }
        stopping = group.is_last;
        if log.trouble().is_some() && (group.is_urgent || Instant::now() >= next_try) {
            next_try = mend(&mut log, shared);
        }
        if log.trouble().is_none() {
            group.begin_with(std::mem::take(&mut owed));
        }
        let is_idle = group.lines.is_empty();
        let began = Instant::now();
        owed.append(&mut group.settle(&mut log, shared));
        gather = if is_idle { Duration::ZERO } else { began.elapsed().min(MOST_GATHERED) };
        if is_idle || stopping {
            log.tell_end();
        }
        lost(owed.split_off(owed.len().min(MOST_OWED)).len());
        shared.see(log.trouble());
    }
    if !owed.is_empty() {
        mend(&mut log, shared);
        let mut group = Group::default();
        group.begin_with(owed);
        lost(group.settle(&mut log, shared).len());
    }
}

/// Tries to mend the log; says when to try again. What is wrong is told by whoever looks next.
fn mend(log: &mut Log, shared: &Shared) -> Instant {
    let (began, before) = (Instant::now(), log.last().seq);
    if log.mend().is_ok() {
        // It has said so.
        let lines = usize::try_from(log.last().seq - before).unwrap_or(usize::MAX);
        shared.written(lines, lines, log.last(), began.elapsed());
    }
    Instant::now() + MEND_PAUSE.max(began.elapsed() * MEND_REST)
}

fn lost(entries: usize) {
    if entries > 0 {
        tracing::error!(entries, "entries that could not be written are lost to the audit log");
    }
}

/// What was waiting.
#[derive(Default)]
struct Group {
    lines: Vec<Line>,
    answers: Vec<Option<oneshot::Sender<Result<Mark, AuditError>>>>,
    probes: Vec<oneshot::Sender<Result<(), AuditError>>>,
    /// Whether a log that cannot be written is to be tried again now.
    is_urgent: bool,
    is_last: bool,
}

impl Group {
    /// Puts lines that nobody waits for before the others.
    fn begin_with(&mut self, lines: Vec<Line>) {
        self.answers.splice(..0, lines.iter().map(|_| None));
        self.lines.splice(..0, lines);
    }

    fn add(&mut self, job: Job) {
        match job {
            Job::Write(line, answer) => {
                self.lines.push(line);
                self.answers.push(answer);
            }
            Job::Probe(answer) => self.probes.push(answer),
            Job::Retry(answer) => {
                self.probes.push(answer);
                self.is_urgent = true;
            }
            Job::Stop => (self.is_urgent, self.is_last) = (true, true),
        }
    }

    /// Gives back the lines that could not be written and that nobody was told so of.
    fn settle(self, log: &mut Log, shared: &Arc<Shared>) -> Vec<Line> {
        let started = Instant::now();
        let done = if self.lines.is_empty() { log.check() } else { log.append(&self.lines) };
        let done = done.map_err(AuditError::Unavailable);
        // Before anybody is answered: who was refused finds no service either.
        shared.see(log.trouble());
        if !self.lines.is_empty() {
            self.count(done.is_ok(), log.last(), started.elapsed(), shared);
        }
        let mut owed = Vec::new();
        for (line, answer) in self.lines.into_iter().zip(self.answers) {
            let told = answer.is_some_and(|answer| answer.send(done.clone().map(|()| log.last())).is_ok());
            // What a checkpoint says is soon said anew.
            if done.is_err() && !told && line.kind != Kind::Checkpoint {
                owed.push(line);
            }
        }
        for answer in self.probes {
            // Whoever has gone away is not missed.
            let _ = answer.send(done.clone());
        }
        owed
    }

    fn count(&self, is_durable: bool, last: Mark, time: Duration, shared: &Arc<Shared>) {
        if !is_durable {
            return shared.stats.failed();
        }
        let others = self.lines.iter().filter(|line| line.kind != Kind::Checkpoint).count();
        shared.written(self.lines.len(), others, last, time);
    }
}
