//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    command::{audit, cards, envelopes, generate, honey, keys, locks, login, records, rewrap},
    time,
};

const ENVIRONMENT: &str = "\
Environment:
  VAULT_SOCKET        the vault's socket; /run/vaultd/vaultd.sock if not set
  VAULT_ADMIN_SOCKET  the admin socket; admin.sock beside VAULT_SOCKET if not set
  VAULT_TOKEN         the JWT to send; without one, and without VAULT_TOKEN_FILE, vaultctl logs in by itself
  VAULT_TOKEN_FILE    a file that holds the JWT
  VAULT_APPROVAL      a second JWT, for operations that need two people

Exit status: 0 done; 1 failed, one line on standard error says why; 2 the command line is wrong.

Examples:
  vaultctl tokenize                          ask for a card number without echo
  vaultctl tokenize --file cards.csv > tokens.csv
  vaultctl detokenize 0198c0de-7a31-7c55-9d5e-0a1b2c3d4e5f --json | jq -r .pan
  vaultctl rotate record && vaultctl rewrap
  vaultctl audit tail -f";

/// The command line of the vault for payment-card numbers.
///
/// A card number is read from standard input, from a file, or from the terminal without echo, and never from an argument.
#[derive(Parser)]
#[command(name = "vaultctl", version, arg_required_else_help = true, after_help = ENVIRONMENT)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What every command takes.
#[derive(Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Answer in JSON, as the API gives it
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The vault's socket, instead of `VAULT_SOCKET`
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The admin socket, instead of `VAULT_ADMIN_SOCKET`
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) admin_socket: Option<PathBuf>,
    /// A file that holds the JWT to send, instead of `VAULT_TOKEN`
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A file that holds a second JWT, of another person, for operations that need two
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) approval_file: Option<PathBuf>,
    /// How long one call may take, such as 90s
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s", value_parser = timeout)]
    pub(crate) timeout: u64,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Log in by the kernel's word, and show the JWT and what it allows
    Login(login::Login),
    /// Swap a card number for a token
    Tokenize(cards::Tokenize),
    /// Swap a token back for its card number
    Detokenize(cards::Detokenize),
    /// Show the record of a token, without the card number
    Show(records::Show),
    /// Find tokens by holder or card number
    Search(records::Search),
    /// Delete tokens and their cards
    Delete(records::Delete),
    /// Seal card data into an envelope, a signed JWT
    Seal(envelopes::Seal),
    /// Open an envelope
    Open(envelopes::Open),
    /// See how the vault is: checks, records, keys, rewrap
    Status,
    /// List keys, or destroy one
    Keys(keys::Keys),
    /// Make a new key for a purpose; the one before it is retired
    Rotate(keys::Rotate),
    /// Bring every record to the active keys, and show the progress
    Rewrap(rewrap::Rewrap),
    /// Have the vault read its issuers and peers again
    Reload,
    /// Read the audit log
    Audit(audit::Audit),
    /// List subjects that a guard has locked, or unlock one
    Locks(locks::Locks),
    /// Plant, list and remove honey tokens
    Honey(honey::Honey),
    /// Print a completion script for a shell
    Completions(generate::Completions),
    /// Write the man pages into a directory
    Man(generate::Man),
}

fn timeout(text: &str) -> Result<u64, String> {
    let seconds = time::seconds(text)?;
    if seconds == 0 { Err("it must be a second or more".to_owned()) } else { Ok(seconds) }
}
