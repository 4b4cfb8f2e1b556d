//! The `vaultd` program: reads the command line, calls a command, and turns its error into an exit status.
#![forbid(unsafe_code)]

mod manual;

use std::{
    fmt,
    io::{self, Write},
    path::PathBuf,
};

use clap::{CommandFactory, Parser, Subcommand};
use mimalloc::MiMalloc;
use vaultd::{
    audit::verify::Options,
    command::{self, CheckOptions, CommandError, DevOptions, RestoreOptions},
    sandbox::{exit_without_handlers, make_files_private},
};
use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed: buffers of libraries that know nothing of card data hold it, too. What is below takes the place of
/// the system's allocator for the PKCS#11 module as well (`docs/decisions/0020-allocator.md`).
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

/// A vault for payment-card numbers.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The user to become, when started as root; files that are made are his.
    #[arg(long, value_name = "NAME", global = true)]
    user: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the vault until SIGTERM or SIGINT.
    Serve {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// From nothing to a working vault for development, in one command.
    Dev {
        /// Where everything is kept; used again if it is there.
        #[arg(long, value_name = "DIR", default_value = "./run/dev")]
        dir: PathBuf,
        /// The PKCS#11 module for the throwaway token; found by itself if left out.
        #[arg(long, value_name = "FILE")]
        module: Option<PathBuf>,
        /// A file with an [hsm] table, as in config/hsm/, that names a token of yours instead.
        #[arg(long, value_name = "FILE", conflicts_with = "module")]
        hsm: Option<PathBuf>,
    },
    /// Make the keys and the store that are missing; touch nothing that exists.
    Init {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Report everything that is wrong with config, files, token, keys and store; start nothing.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Open every record and compare it with indexes and census as well; needs vaultd to be stopped.
        #[arg(long)]
        deep: bool,
        /// Leave out how fast the token is, and trials with keys that are not kept.
        #[arg(long)]
        quick: bool,
    },
    /// Write a copy of the store that only the vault's own token opens; vaultd may serve meanwhile.
    Backup {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The file to write, which must not be there.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a store from a backup, where there is none. Needs vaultd to be stopped.
    Restore {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The backup.
        #[arg(long, value_name = "FILE", alias = "in")]
        from: PathBuf,
        /// Only find out whether the backup could be restored; vaultd may serve meanwhile.
        #[arg(long)]
        check: bool,
    },
    /// Verify an audit log, or go on with one of which some is lost.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Print the JSON Schema of the configuration file.
    #[command(hide = true)]
    Schema,
    /// Write man pages and completion scripts into a directory, for packages.
    #[command(hide = true)]
    Manual {
        /// The directory; made if it does not exist.
        dir: PathBuf,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Let a vault whose log was damaged serve again; the loss stays on the record. Needs vaultd to be stopped.
    Resume {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Why, for whoever reads the log: never card data.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Find out whether a log is what its vault wrote. Ends with 0 if it is, with 1 if it is damaged.
    Verify {
        /// The directory of the log.
        dir: PathBuf,
        /// The public keys of the vault's checkpoints (JWK set or PEM), instead of keys.json in DIR.
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
        /// Earlier files of the log are kept elsewhere.
        #[arg(long)]
        partial: bool,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() {
    command::tell_panics();
    make_files_private();
    // A wrong command line ends here, with status 2.
    let arguments = Arguments::try_parse().unwrap_or_else(|error| {
        // It repeats what it does not understand.
        if error.use_stderr() && has_long_number(&error.to_string()) {
            complain(
                &"the command line is not understood, and not repeated: it has a number as long as a card's",
            );
            exit_without_handlers(2);
        }
        error.exit()
    });
    let mut unsaid = Ok(());
    let mut say = |line: &str| unsaid = std::mem::replace(&mut unsaid, Ok(())).and_then(|()| print(line));
    let done = run(arguments.command, arguments.user.as_deref(), &mut say);
    let done = done.and_then(|()| {
        unsaid.map_err(|error| CommandError::new("it is done, but standard output cannot be written", error))
    });
    let status = match done {
        Ok(()) => 0,
        Err(error) => {
            complain(&error);
            error.exit_status()
        }
    };
    exit_without_handlers(status);
}

fn run(command: Command, user: Option<&str>, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    // `serve` opens its sockets before.
    if let (Some(user), false) = (user, matches!(command, Command::Serve { .. })) {
        command::become_user(user)?;
    }
    match command {
        Command::Serve { config } => command::serve(&config, user),
        Command::Dev { dir, module, hsm } => command::dev(&DevOptions { dir, module, hsm }, say),
        Command::Init { config } => command::init(&config, say),
        Command::Check { config, deep, quick } => command::check(&config, CheckOptions { deep, quick }, say),
        Command::Backup { config, out } => command::backup(&config, &out, say),
        Command::Restore { config, from, check } => {
            command::restore(&config, &RestoreOptions { from, check }, say)
        }
        Command::Audit { command: AuditCommand::Resume { config, reason } } => {
            command::audit_resume(&config, &reason, say)
        }
        Command::Audit { command: AuditCommand::Verify { dir, keys, partial, json } } => {
            command::audit_verify(&dir, &Options { keys, is_partial: partial }, json, say)
        }
        Command::Schema => {
            say(vaultd::config::schema().trim_end());
            Ok(())
        }
        Command::Manual { dir } => manual::write(&mut Arguments::command(), &dir)
            .map_err(|error| CommandError::new("cannot write the manual", error)),
    }
}

/// Whoever closes standard output does not want to read; the work is done all the same.
fn print(line: &str) -> io::Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Whether `text` has as many digits as a card number, wherever they stand (ISO/IEC 7812-1).
fn has_long_number(text: &str) -> bool {
    text.bytes().filter(u8::is_ascii_digit).count() >= 12
}

fn complain(error: &impl fmt::Display) {
    let _ = writeln!(io::stderr(), "vaultd: {error}");
}
