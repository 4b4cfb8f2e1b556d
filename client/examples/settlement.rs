//! A settlement file: swaps thousands of card numbers for tokens, or back, in batches of 1,000.
//!
//! ```text
//! settlement tokenize   [FILE] > tokens.csv     reads the columns pan, and holder and expiry_date if they are there
//! settlement detokenize [FILE] > cards.csv      reads the column token
//! ```
//!
//! Without FILE it reads standard input. The vault is the one of `VAULT_SOCKET`. A bad row fails alone: it is named by
//! its line, never by what it holds, and the exit status is 1. To run it again is harmless where card numbers keep
//! their token.
//!
//! The requests wipe themselves. The buffers of the CSV library do not: its files hold the same rows in clear.
// A program for people: what it has to say goes to the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    env,
    error::Error,
    fs::File,
    io::{self, IsTerminal, Read},
    process::ExitCode,
    time::Duration,
};

use csv::{ByteRecord, Reader, ReaderBuilder, Writer};
use indicatif::{ProgressBar, ProgressStyle};
use vault_client::{ItemError, MAX_BATCH_ITEMS, Sensitive, TokenizeRequest, VaultClient};

/// The longest field that can be anything the vault knows: a holder's name has 200 characters of up to 4 bytes.
const MAX_FIELD_BYTES: usize = 800;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match settle().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("settlement: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Gives back how many rows failed.
async fn settle() -> Outcome<u64> {
    let (mut words, usage) = (env::args().skip(1), "usage: settlement tokenize|detokenize [FILE]");
    let (way, file) = (words.next().ok_or(usage)?, words.next());
    let (input, bytes): (Box<dyn Read>, _) = match &file {
        Some(path) => {
            let file = File::open(path).map_err(|error| format!("cannot read {path}: {error}"))?;
            let bytes = file.metadata()?.len();
            (Box::new(file), Some(bytes))
        }
        None => (Box::new(io::stdin()), None),
    };
    let vault = VaultClient::from_env()?;
    let mut rows = Rows::new(input, bytes)?;
    match way.as_str() {
        "tokenize" => tokenize(&vault, &mut rows).await?,
        "detokenize" if io::stdout().is_terminal() => {
            return Err("it does not print card numbers on a terminal: send the output to a file".into());
        }
        "detokenize" => detokenize(&vault, &mut rows).await?,
        _ => return Err(usage.into()),
    }
    Ok(rows.finish())
}

async fn tokenize(vault: &VaultClient, rows: &mut Rows) -> Outcome<()> {
    let pan = rows.column("pan").ok_or("the first line names no column `pan`")?;
    let (holder, expiry) = (rows.column("holder"), rows.column("expiry_date"));
    let request = |row: &ByteRecord| {
        Ok(TokenizeRequest {
            holder: optional(row, holder)?,
            expiry_date: optional(row, expiry)?,
            ..TokenizeRequest::new(required(row, pan)?)
        })
    };
    let mut output = Writer::from_writer(io::stdout());
    output.write_record(["line", "token", "masked_pan", "created"])?;
    while let Some((lines, requests)) = rows.batch(request)? {
        let answers = vault.tokenize_batch(&requests).await.map_err(|error| rows.stopped(&lines, &error))?;
        for (line, answer) in lines.into_iter().zip(answers) {
            let Some(made) = rows.count(line, answer) else { continue };
            let created = made.created.to_string();
            output.write_record([&line.to_string(), &made.token, &made.masked_pan, &created])?;
        }
        output.flush()?;
    }
    Ok(())
}

async fn detokenize(vault: &VaultClient, rows: &mut Rows) -> Outcome<()> {
    let token = rows.column("token").ok_or("the first line names no column `token`")?;
    let mut output = Writer::from_writer(io::stdout());
    output.write_record(["line", "token", "pan", "expiry_date"])?;
    while let Some((lines, tokens)) = rows.batch(|row| required(row, token).map(str::to_owned))? {
        let answers = vault.detokenize_batch(&tokens).await.map_err(|error| rows.stopped(&lines, &error))?;
        for ((line, token), answer) in lines.into_iter().zip(tokens).zip(answers) {
            let Some(card) = rows.count(line, answer) else { continue };
            let expiry = card.expiry_date.as_ref().map_or("", Sensitive::expose);
            output.write_record([&line.to_string(), &token, card.pan.expose(), expiry])?;
        }
        output.flush()?;
    }
    Ok(())
}

/// The rows of the input, and how it went with them.
struct Rows {
    reader: Reader<Box<dyn Read>>,
    names: ByteRecord,
    /// Seen on a terminal only.
    progress: ProgressBar,
    done: u64,
    failed: u64,
}

impl Rows {
    fn new(input: Box<dyn Read>, bytes: Option<u64>) -> Outcome<Self> {
        let lines: Box<dyn Read> = Box::new(UnixLines(input).chain(&b"\n"[..]));
        let mut reader = ReaderBuilder::new().flexible(true).from_reader(lines);
        let mut names = reader.byte_headers()?.clone();
        names.trim();
        let (progress, template) = match bytes {
            Some(bytes) => (ProgressBar::new(bytes), "{bar:40} {percent:>3} %  {msg}  {eta} left"),
            None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
        };
        progress.set_style(ProgressStyle::with_template(template)?);
        progress.enable_steady_tick(Duration::from_millis(200));
        Ok(Self { reader, names, progress, done: 0, failed: 0 })
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known == name.as_bytes())
    }

    /// The next batch: what `item` makes of up to 1,000 good rows, with their lines; `None` at the end.
    fn batch<T>(
        &mut self,
        item: impl Fn(&ByteRecord) -> Result<T, &'static str>,
    ) -> Outcome<Option<(Vec<u64>, Vec<T>)>> {
        let (mut lines, mut items) = (Vec::new(), Vec::new());
        let mut row = ByteRecord::new();
        while items.len() < MAX_BATCH_ITEMS && self.reader.read_byte_record(&mut row)? {
            let line = self.line(&row);
            match item(&row) {
                Ok(item) => {
                    lines.push(line);
                    items.push(item);
                }
                Err(why) => self.fail(line, why),
            }
        }
        Ok((!items.is_empty()).then_some((lines, items)))
    }

    /// The line in which `row`, which was just read, begins. The row's own position would be that of the blank lines
    /// before it.
    fn line(&self, row: &ByteRecord) -> u64 {
        let breaks = row.as_slice().iter().map(|byte| u64::from(*byte == b'\n')).sum();
        self.reader.position().line().saturating_sub(1).saturating_sub(breaks)
    }

    /// The answer for the row in `line`, if there is one.
    fn count<T>(&mut self, line: u64, answer: Result<T, ItemError>) -> Option<T> {
        match answer {
            Ok(answer) => {
                self.done += 1;
                self.progress.set_position(self.reader.position().byte());
                self.progress.set_message(format!("{} rows, {} failed", self.done, self.failed));
                Some(answer)
            }
            Err(error) => {
                self.fail(line, &error.to_string());
                None
            }
        }
    }

    fn fail(&mut self, line: u64, why: &str) {
        self.failed += 1;
        self.progress.suspend(|| eprintln!("line {line}: {why}"));
    }

    /// Why it went no further than the row before `lines`.
    fn stopped(&self, lines: &[u64], error: &vault_client::Error) -> String {
        let first = lines.first().copied().unwrap_or_default();
        self.progress.finish_and_clear();
        format!("stopped at line {first}, after {} rows: {error}", self.done)
    }

    fn finish(self) -> u64 {
        self.progress.finish_and_clear();
        eprintln!("settlement: {} rows done, {} failed", self.done, self.failed);
        self.failed
    }
}

fn required(row: &ByteRecord, column: usize) -> Result<&str, &'static str> {
    field(row, column)?.ok_or("the column is empty or missing: nothing was sent")
}

fn optional(row: &ByteRecord, column: Option<usize>) -> Result<Option<Sensitive>, &'static str> {
    let Some(column) = column else { return Ok(None) };
    Ok(field(row, column)?.map(Sensitive::from))
}

/// A field that is there and not empty.
fn field(row: &ByteRecord, column: usize) -> Result<Option<&str>, &'static str> {
    let bytes = row.get(column).unwrap_or_default();
    if bytes.len() > MAX_FIELD_BYTES {
        return Err("a field is too long: nothing was sent");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "a field is not UTF-8: nothing was sent")?;
    let text = text.trim();
    Ok((!text.is_empty()).then_some(text))
}

/// Lines that end in `\n` alone: the CSV library counts lines exactly in such.
struct UnixLines(Box<dyn Read>);

impl Read for UnixLines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.0.read(buffer)?;
            let mut kept = 0;
            for place in 0..count {
                if buffer.get(place).is_some_and(|byte| *byte != b'\r') {
                    buffer.swap(kept, place);
                    kept += 1;
                }
            }
            if kept > 0 || count == 0 {
                return Ok(kept);
            }
        }
    }
}
