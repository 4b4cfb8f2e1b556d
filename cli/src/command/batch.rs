//! The lines of a file of card numbers or tokens, batch by batch, and how it goes with them.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    complaint::Complaint,
    input,
    interrupt::{Interrupt, Interruptible},
    lines::{Lines, LinesError, MAX_LINE_BYTES, Row, Unsent, Why},
    table::printable,
};

/// How many bytes of lines and options go into one request: half of what a body may have by default, for JSON writes some
/// characters as two.
const MOST_BYTES: u64 = 512 * 1_024;

/// Lines that were read together, in their order.
pub(super) struct Batch<T> {
    /// What is sent.
    pub(super) items: Vec<T>,
    /// The number of each line that has an item, and the lines of which nothing is sent.
    pub(super) lines: Vec<Result<u64, Unsent>>,
}

impl<T> Batch<T> {
    pub(super) fn first_line(&self) -> u64 {
        self.lines.first().map_or(0, |line| line.unwrap_or_else(|unsent| unsent.line))
    }
}

/// The lines of a file, and how it goes with them.
pub(super) struct Input {
    pub(super) lines: Lines<Interruptible>,
    interrupt: Interrupt,
    /// Why there are no further lines, if that is not the end.
    pub(super) broken: Option<Complaint>,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) progress: ProgressBar,
}

impl Input {
    /// Opens `path`, whose values stand alone or in the column `name`, beside which are only those of `known`.
    pub(super) fn open(path: &Path, name: &str, known: Option<&[&str]>) -> Result<Self, Complaint> {
        let file = if path.as_os_str() == "-" { stdin() } else { open(path) }?;
        let interrupt = Interrupt::watch()?;
        let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
        let lines = Lines::new(Interruptible { file, interrupt: interrupt.clone() }, name);
        let lines = lines.map_err(|error| complaint(error, name, &interrupt))?;
        if let Some((known, unknown)) = known.and_then(|known| Some((known, lines.column_beside(known)?))) {
            return Err(unknown_column(&unknown, known));
        }
        Ok(Self { lines, interrupt, broken: None, done: 0, failed: 0, progress: progress(length) })
    }

    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.lines.column(name)
    }

    /// The next lines, at most `most`, with the `item` of each, to which `added` bytes come; `None` after the last that can
    /// be read.
    pub(super) fn batch<T>(
        &mut self,
        most: usize,
        added: u64,
        item: impl Fn(Row) -> Result<T, Unsent>,
    ) -> Option<Batch<T>> {
        let mut batch = Batch { items: Vec::new(), lines: Vec::new() };
        if self.interrupt.has_come() {
            self.broken = Some(interrupted());
        }
        let before = self.lines.bytes();
        let is_full = |rows: usize, read: u64| {
            rows >= most || read - before + added * u64::try_from(rows).unwrap_or(u64::MAX) >= MOST_BYTES
        };
        while !is_full(batch.lines.len(), self.lines.bytes()) && self.broken.is_none() {
            let row = self.lines.next_row();
            self.progress.set_position(self.lines.bytes());
            match row {
                Ok(None) => break,
                Ok(Some(row)) => batch.lines.push(row.and_then(|row| {
                    let line = row.line;
                    batch.items.push(item(row)?);
                    Ok(line)
                })),
                // What was read before goes first.
                Err(error) => self.broken = Some(complaint(error, "", &self.interrupt)),
            }
        }
        (!batch.lines.is_empty()).then_some(batch)
    }

    pub(super) fn fail_at(&mut self, line: u64, why: &str) {
        self.failed += 1;
        let why = printable(why);
        self.progress.suspend(|| {
            let _ = writeln!(io::stderr(), "vaultctl: line {line}: {why}");
        });
    }
}

/// What to say of a file whose values are `name`s and that is not read on.
fn complaint(error: LinesError, name: &str, interrupt: &Interrupt) -> Complaint {
    Complaint::Failed(match error {
        LinesError::Read(_) if interrupt.has_come() => return interrupted(),
        LinesError::Read(error) => return Complaint::failed("cannot read the file", error),
        LinesError::TooLong(line) => format!(
            "line {line} is to name the columns and has more than {MAX_LINE_BYTES} bytes: nothing was sent"
        ),
        LinesError::GoesOn(line) => format!("line {line}: {}", Why::GoesOn),
        LinesError::NoColumn => format!(
            "the first line of a CSV file must name its columns, separated by commas, and one must be `{name}`: nothing was \
             sent"
        ),
    })
}

fn interrupted() -> Complaint {
    Complaint::Failed("interrupted".to_owned())
}

/// What to say of a column, its place and its name, that is none of `known`.
fn unknown_column((place, name): &(usize, String), known: &[&str]) -> Complaint {
    // A name with digits may be a card number.
    let name = if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_digit()) {
        String::new()
    } else {
        format!(" (`{name}`)")
    };
    Complaint::Usage(format!(
        "the first line names a column that is not known, number {place}{name}; known are `{}`: nothing was sent",
        known.join("`, `")
    ))
}

fn stdin() -> Result<File, Complaint> {
    if io::stdin().is_terminal() {
        return Err(Complaint::Usage(
            "standard input is a terminal, which would show what is typed: leave out --file to be asked"
                .to_owned(),
        ));
    }
    input::stdin()
}

fn open(path: &Path) -> Result<File, Complaint> {
    if path.is_dir() {
        let path = path.display();
        return Err(Complaint::Failed(format!(
            "{path} is a directory: name one file of it, of one value a line or CSV"
        )));
    }
    File::open(path).map_err(|error| Complaint::file("read", path, &error))
}

/// Draws on standard error, and there on a terminal only.
fn progress(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(bytes) => {
            (ProgressBar::new(bytes), "{bar:40} {percent:>3} %  {bytes} of {total_bytes}  {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {elapsed}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
