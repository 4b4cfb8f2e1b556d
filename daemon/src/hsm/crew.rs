//! The threads that call the module, and the keeper that looks after them and never calls it.
//!
//! A call that does not come back cannot be stopped. Its thread is written off: nobody waits for it, another takes its
//! place, and when the call does come back the thread ends itself.

use std::{
    io,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};

use super::{
    connection::lock,
    link::Link,
    watch::{Call, Desk},
    worker::{Job, Worker},
};

/// How often the keeper looks, and how often a thread that is to end is looked at.
const LOOK: Duration = Duration::from_millis(50);
const STOP_POLL: Duration = Duration::from_millis(5);
/// The longest that it may last to start the module. Whoever takes the mender's place before it is started can only end
/// it and start it once more.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// How many threads there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Workers, each with a session. There is one mender beside them.
    pub(super) workers: usize,
    /// Threads that are written off and replaced.
    pub(super) written_off: usize,
    /// The longest that a call may last.
    pub(super) call_timeout: Duration,
}

impl Size {
    fn longest(&self, call: Call) -> Duration {
        match call {
            Call::Start => self.call_timeout.max(START_TIMEOUT),
            Call::Plain => self.call_timeout,
        }
    }
}

/// Every thread that may be inside the module.
pub(super) struct Crew {
    link: Arc<Link>,
    jobs: Receiver<Job>,
    size: Size,
    roster: Mutex<Roster>,
}

#[derive(Default)]
struct Roster {
    serving: Vec<Member>,
    written_off: Vec<Member>,
    /// Threads started so far, for their names.
    started: u64,
    /// Somebody could not be replaced.
    short: bool,
    stopping: bool,
    keeper: Option<JoinHandle<()>>,
}

struct Member {
    role: Role,
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Worker,
    Mender,
}

impl Roster {
    fn serves(&self, role: Role) -> bool {
        self.serving.iter().any(|member| member.role == role)
    }
}

impl Crew {
    /// Starts everybody.
    pub(super) fn start(link: Arc<Link>, jobs: Receiver<Job>, size: Size) -> io::Result<Arc<Self>> {
        let crew = Arc::new(Self { link, jobs, size, roster: Mutex::default() });
        let mut roster = lock(&crew.roster);
        crew.fill(&mut roster)?;
        let kept = Arc::clone(&crew);
        roster.keeper =
            Some(thread::Builder::new().name("hsm-keeper".to_owned()).spawn(move || kept.keep())?);
        drop(roster);
        Ok(crew)
    }

    /// Ends everybody after the work that is queued; says whether nobody is inside the module any more. Blocks for
    /// no longer than a call may last.
    pub(super) fn stop(&self, queue: &Sender<Job>) -> bool {
        let (members, keeper) = {
            let mut roster = lock(&self.roster);
            roster.stopping = true;
            let mut members = std::mem::take(&mut roster.serving);
            members.append(&mut roster.written_off);
            (members, roster.keeper.take())
        };
        if let Some(keeper) = keeper {
            keeper.thread().unpark();
            let _ = keeper.join();
        }
        self.link.end();
        let deadline = Instant::now() + self.size.call_timeout;
        for _ in members.iter().filter(|member| member.role == Role::Worker) {
            let _ = queue.send_deadline(Job::Stop, deadline);
        }
        members.into_iter().all(|member| ended(member, deadline))
    }

    /// How many threads are written off, and how many may be.
    pub(super) fn written_off(&self) -> (usize, usize) {
        (lock(&self.roster).written_off.len(), self.size.written_off)
    }

    fn keep(&self) {
        loop {
            thread::park_timeout(LOOK);
            let mut roster = lock(&self.roster);
            if roster.stopping {
                return;
            }
            self.look_after(&mut roster);
        }
    }

    fn look_after(&self, roster: &mut Roster) {
        for member in roster.written_off.extract_if(.., |member| member.thread.is_finished()) {
            let _ = member.thread.join();
            tracing::warn!("an HSM call that was given up has come back");
        }
        for member in roster.serving.extract_if(.., |member| member.thread.is_finished()) {
            if member.thread.join().is_ok() {
                // The queue is gone: nobody needs the HSM any more.
                roster.stopping = true;
                return;
            }
            tracing::error!(role = ?member.role, "an HSM thread ended with a panic and is replaced");
            self.link.note_seat(&member.desk, false);
            self.lose(member.role, "an HSM thread ended with a panic");
        }
        let starts = |member: &Member| match member.desk.calling_for() {
            Some((time, Call::Start)) => time > self.size.call_timeout,
            _ => false,
        };
        if roster.serving.iter().any(starts) {
            self.link.outlast();
        }
        let hangs = |member: &mut Member| {
            member.desk.calling_for().is_some_and(|(time, call)| time > self.size.longest(call))
        };
        for member in roster.serving.extract_if(.., hangs) {
            member.desk.write_off();
            self.link.note_seat(&member.desk, false);
            let role = member.role;
            roster.written_off.push(member);
            tracing::error!(
                ?role,
                written_off = roster.written_off.len(),
                of = self.size.written_off,
                "an HSM call does not come back: its thread is given up and replaced"
            );
            self.lose(role, "an HSM call does not come back");
        }
        let filled = self.fill(roster);
        // With fewer of them it goes on, if more slowly.
        let short = ![Role::Worker, Role::Mender].into_iter().all(|role| roster.serves(role));
        if short && !roster.short {
            self.link.hold(&match filled {
                Ok(()) => format!("{} HSM calls do not come back", roster.written_off.len()),
                Err(error) => format!("cannot start an HSM thread: {error}"),
            });
        } else if roster.short && !short {
            self.link.release();
        }
        roster.short = short;
    }

    fn lose(&self, role: Role, cause: &str) {
        match role {
            Role::Worker => self.link.distrust(cause),
            Role::Mender => self.link.abandon(cause),
        }
    }

    /// Replaces whoever is missing, as far as the number of written-off threads allows.
    fn fill(&self, roster: &mut Roster) -> io::Result<()> {
        let full = self.size.workers + 1;
        while roster.serving.len() < full
            && roster.serving.len() + roster.written_off.len() < full + self.size.written_off
        {
            let role = if roster.serves(Role::Mender) { Role::Worker } else { Role::Mender };
            roster.started += 1;
            let member = self.hire(role, roster.started)?;
            roster.serving.push(member);
        }
        Ok(())
    }

    fn hire(&self, role: Role, number: u64) -> io::Result<Member> {
        let desk = Arc::new(Desk::default());
        let (link, jobs, own_desk) = (Arc::clone(&self.link), self.jobs.clone(), Arc::clone(&desk));
        let work = move || {
            own_desk.sit_down();
            match role {
                Role::Worker => Worker::new(link, own_desk).serve(&jobs),
                Role::Mender => link.mend(&own_desk),
            }
        };
        let thread = thread::Builder::new().name(format!("hsm-{number}")).spawn(work)?;
        Ok(Member { role, desk, thread })
    }
}

/// Waits for the thread of `member`; says whether it has ended.
fn ended(member: Member, deadline: Instant) -> bool {
    while !member.thread.is_finished() && Instant::now() < deadline {
        thread::sleep(STOP_POLL);
    }
    let finished = member.thread.is_finished();
    if finished && member.thread.join().is_err() {
        tracing::error!("an HSM thread ended with a panic");
    }
    finished
}
