//! `vaultctl`: the command line of the vault, for operators and scripts.
//!
//! The program is [`main`]; what reads what people give it stands open for its fuzz targets. It talks to the sockets of vaultd through `vault-client`, and never to files of the vault or the HSM. A card number
//! comes from standard input, a file or a terminal without echo, never from an argument, and goes to standard output only.
#![forbid(unsafe_code)]

pub mod lines;
pub mod time;
pub mod visible;

mod arguments;
mod command;
mod complaint;
mod input;
mod interrupt;
mod output;
mod session;
mod table;
mod terminal;

use std::{
    ffi::OsString,
    io::{self, Write},
    panic,
    process::ExitCode,
};

use clap::Parser;

use crate::{arguments::Arguments, complaint::Complaint};

/// What the program does with the command line `words`, of which the first is its own name.
pub fn main(words: &[OsString]) -> ExitCode {
    // The standard library's words have the text that a string was cut at, which may be a card number.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(io::stderr(), "vaultctl: panicked at {place}: please report this");
    }));
    let complaint = match run(words) {
        // Whoever has read enough closes the pipe.
        Ok(()) | Err(Complaint::ReaderGone) => return ExitCode::SUCCESS,
        Err(complaint) => complaint,
    };
    let _ = writeln!(io::stderr(), "vaultctl: {complaint}");
    complaint.exit_code()
}

fn run(words: &[OsString]) -> Result<(), Complaint> {
    visible::refuse_card_numbers(words).map_err(Complaint::Usage)?;
    visible::refuse_jwts(words).map_err(Complaint::Usage)?;
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap repeats what it does not understand.
            if error.use_stderr() {
                visible::refuse_long_numbers(words).map_err(Complaint::Usage)?;
                visible::refuse_verification_values(words).map_err(Complaint::Usage)?;
            }
            error.exit();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Complaint::failed("cannot start", error))?;
    runtime.block_on(command::run(arguments))
}
