//! The commands: a file for each group, which holds their options and what they do.

pub(crate) mod audit;
mod away;
mod batch;
mod bulk;
pub(crate) mod cards;
pub(crate) mod envelopes;
pub(crate) mod generate;
pub(crate) mod honey;
pub(crate) mod keys;
pub(crate) mod locks;
pub(crate) mod login;
pub(crate) mod records;
pub(crate) mod rewrap;
mod status;

use crate::{
    arguments::{Arguments, Command},
    complaint::Complaint,
    session::Session,
};

/// Does what the command line asks for.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Complaint> {
    let Arguments { command, common } = arguments;
    let session = match command {
        Command::Completions(completions) => return completions.run(),
        Command::Man(man) => return man.run(),
        _ => Session::new(common)?,
    };
    match command {
        Command::Login(login) => login.run(&session).await,
        Command::Tokenize(tokenize) => tokenize.run(&session).await,
        Command::Detokenize(detokenize) => detokenize.run(&session).await,
        Command::Show(show) => show.run(&session).await,
        Command::Search(search) => search.run(&session).await,
        Command::Delete(delete) => delete.run(&session).await,
        Command::Seal(seal) => seal.run(&session).await,
        Command::Open(open) => open.run(&session).await,
        Command::Status => status::status(&session).await,
        Command::Keys(keys) => keys.run(&session).await,
        Command::Rotate(rotate) => rotate.run(&session).await,
        Command::Rewrap(rewrap) => rewrap.run(&session).await,
        Command::Reload => status::reload(&session).await,
        Command::Audit(audit) => audit.run(&session).await,
        Command::Locks(locks) => locks.run(&session).await,
        Command::Honey(honey) => honey.run(&session).await,
        Command::Completions(_) | Command::Man(_) => Ok(()),
    }
}
