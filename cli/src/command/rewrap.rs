//! `vaultctl rewrap`.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use vault_client::{Admin, RewrapState, api};
use zeroize::Zeroizing;

use super::away::Away;
use crate::{complaint::Complaint, session::Session, table::details, time};

/// The time between two looks at the job: short at first, for it may be done at once.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
The job runs in vaultd: Ctrl-C ends the watching, not the job.

Examples:
  vaultctl rewrap            start it, or join one that runs, and stay until it ends
  vaultctl rewrap start      start it and go
  vaultctl rewrap show       how it stands
  vaultctl rewrap follow     stay with one that runs";

/// Options of `rewrap`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rewrap {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Start it and return at once
    Start,
    /// Show how it stands
    Show,
    /// Stay with one that runs until it ends
    Follow,
}

impl Rewrap {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let admin = session.admin()?;
        let job = match self.action {
            Some(Action::Start) => admin.start_rewrap().await?,
            Some(Action::Show) => admin.rewrap().await?,
            Some(Action::Follow) => follow(&admin, admin.rewrap().await?).await?,
            None => follow(&admin, admin.start_rewrap().await?).await?,
        };
        let told = session.output.answer(&job, text);
        match job.state {
            RewrapState::Incomplete => Err(Complaint::Failed(format!(
                "{} records could not be opened and keep their key; vaultd's log names them, `vaultd check --deep` says more",
                job.failed
            ))),
            _ => told,
        }
    }
}

/// The job as it ended.
async fn follow(admin: &Admin, mut job: api::Rewrap) -> Result<api::Rewrap, Complaint> {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
    // Draws on standard error, and there on a terminal only.
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (mut pause, mut away) = (FIRST_LOOK, Away::default());
    let say = |what: &str| {
        let _ = bar.suspend(|| writeln!(io::stderr(), "{what}"));
    };
    while matches!(job.state, RewrapState::Running | RewrapState::Waiting) {
        bar.set_length(job.done.saturating_add(job.left));
        bar.set_position(job.done);
        bar.set_message(line(&job));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
        // The job goes on after a restart.
        if let Some(now) = away.sit_out(admin.rewrap().await, say).await? {
            job = now;
        }
    }
    bar.finish_and_clear();
    Ok(job)
}

/// The job in a line.
pub(super) fn line(job: &api::Rewrap) -> String {
    let state = job.state.to_string();
    if job.state == RewrapState::Idle {
        return state;
    }
    let eta = job.eta.map_or_else(String::new, |eta| format!(", {} to go", time::short(eta)));
    format!("{state}: {} done, {} left, {:.0}/s{eta}", job.done, job.left, job.rate)
}

/// The job for people.
fn text(job: &api::Rewrap) -> Zeroizing<String> {
    details([
        ("state", Some(job.state.to_string())),
        ("started_at", job.started_at.map(|at| at.to_string())),
        ("finished_at", job.finished_at.map(|at| at.to_string())),
        ("done", Some(job.done.to_string())),
        ("left", Some(job.left.to_string())),
        ("failed", Some(job.failed.to_string())),
        ("rate", job.eta.map(|_| format!("{:.0}/s", job.rate))),
        ("eta", job.eta.map(time::short)),
    ])
}
