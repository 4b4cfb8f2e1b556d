//! `vaultctl locks`.

use clap::{Args, Subcommand};
use vault_client::api;

use crate::{complaint::Complaint, session::Session, table::Table};

const EXAMPLES: &str = "\
Examples:
  vaultctl locks
  vaultctl locks unlock dev-issuer till-7
  vaultctl locks unlock dev-issuer till-7 --approval-file colleague.jwt";

/// Options of `locks`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Locks {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// List every subject that is locked; what `locks` alone does
    List,
    /// Unlock a subject
    Unlock {
        /// The issuer, as `locks` shows it
        issuer: String,
        /// The subject, as `locks` shows it
        subject: String,
    },
}

impl Locks {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let admin = session.admin()?;
        match self.action {
            None | Some(Action::List) => {
                let locks = api::Locks { locks: admin.locks().await? };
                session.output.answer(&locks, |locks| {
                    let mut table = Table::new(["ISSUER", "SUBJECT", "TENANT", "LOCKED", "REASON"]);
                    for lock in &locks.locks {
                        table.row([
                            lock.issuer.clone(),
                            lock.subject.clone(),
                            lock.tenant.clone(),
                            lock.locked_at.to_string(),
                            lock.reason.clone(),
                        ]);
                    }
                    table.text()
                })
            }
            Some(Action::Unlock { issuer, subject }) => {
                let answer = api::Unlocked { unlocked: admin.unlock(&issuer, &subject).await? };
                session.output.answer(&answer, |answer| {
                    let said = if answer.unlocked { "unlocked\n" } else { "it is not locked\n" };
                    said.to_owned().into()
                })
            }
        }
    }
}
