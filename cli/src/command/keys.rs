//! `vaultctl keys` and `rotate`.

use std::io::{self, IsTerminal, Write};

use clap::{Args, Subcommand};
use vault_client::{Key, api};
use zeroize::Zeroizing;

use crate::{
    complaint::{Complaint, note},
    session::Session,
    table::{Table, or_dash},
    time,
};

const EXAMPLES: &str = "\
Examples:
  vaultctl keys
  vaultctl rotate record && vaultctl rewrap
  vaultd backup --config FILE --out FILE     for the backups of before end with the key
  vaultctl keys destroy record 1";

/// The purpose whose keys seal records, and backups with them.
const RECORD: &str = "record";

/// Options of `keys`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Keys {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// List every key there is or was; what `keys` alone does
    List,
    /// Destroy a retired key that nothing depends on; there is no way back
    Destroy {
        /// Such as record
        purpose: String,
        /// Such as 1
        version: u32,
        /// Ask no question
        #[arg(long)]
        yes: bool,
    },
}

impl Keys {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let admin = session.admin()?;
        match self.action {
            None | Some(Action::List) => {
                let keys = api::Keys { keys: admin.keys().await? };
                session.output.answer(&keys, |keys| table(&keys.keys))
            }
            Some(Action::Destroy { purpose, version, yes }) => {
                if !yes && io::stdin().is_terminal() {
                    confirm(&purpose, version)?;
                }
                let key = admin.destroy_key(&purpose, version).await?;
                if purpose == RECORD {
                    note(
                        "backups of before the last rewrap can no longer be restored: unless there is one since, \
                         make one now with `vaultd backup`",
                    );
                }
                session.output.answer(&key, |key| table(std::slice::from_ref(key)))
            }
        }
    }
}

/// Options of `rotate`.
#[derive(Args)]
pub(crate) struct Rotate {
    /// Such as record, fingerprint, holder, envelope, jwt or audit
    purpose: String,
}

impl Rotate {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Complaint> {
        let key = session.admin()?.rotate(&self.purpose).await?;
        session.output.answer(&key, |key| table(std::slice::from_ref(key)))
    }
}

/// Keys for people.
pub(super) fn table(keys: &[Key]) -> Zeroizing<String> {
    let mut table =
        Table::new(["KEY", "STATE", "AGE", "ENDS", "RECORDS", "ENCRYPTIONS", "NEEDED_UNTIL", "WARNING"]);
    for key in keys {
        table.row([
            format!("{}-v{}", key.purpose, key.version),
            key.state.to_string(),
            time::short(key.age),
            key.ends_at.strftime("%F").to_string(),
            or_dash(key.records),
            or_dash(key.encryptions),
            or_dash(key.needed_until),
            or_dash(key.warning.as_deref()),
        ]);
    }
    table.text()
}

fn confirm(purpose: &str, version: u32) -> Result<(), Complaint> {
    let name = format!("{purpose}-v{version}");
    let more = if purpose == RECORD { " Backups of before the last rewrap end with it." } else { "" };
    let failed = |error| Complaint::failed("cannot ask on the terminal", error);
    let mut stderr = io::stderr();
    write!(stderr, "Destroy {name} for good?{more} Type its name: ").map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    if answer.trim() == name { Ok(()) } else { Err(Complaint::Failed("nothing was destroyed".to_owned())) }
}
