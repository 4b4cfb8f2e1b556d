//! Files of card numbers or tokens: lines in, batches to the vault, results out in the same order.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    time::Duration,
};

use csv::WriterBuilder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use vault_client::{ItemError, Sensitive, VaultClient, api::DetokenizeAnswer};
use zeroize::Zeroizing;

use super::cards::Wishes;
use crate::{
    complaint::Complaint,
    input,
    lines::{Lines, LinesError, MAX_LINE_BYTES, NoValue, Row},
    output::{Output, json},
    table::printable,
};

/// Swaps every card number of `file` for a token.
pub(super) async fn tokenize(
    vault: &VaultClient,
    output: &Output,
    file: &Path,
    batch: usize,
    wishes: &Wishes,
) -> Result<(), Complaint> {
    let mut input = Input::open(file, "pan", output)?;
    let mut results = Results::begin(output, ["line", "token", "masked_pan", "created"])?;
    let (holder, expiry) = (input.column("holder"), input.column("expiry_date"));
    while let Some(rows) = input.batch(batch)? {
        let requests: Vec<_> = rows
            .iter()
            .map(|row| wishes.request(row.value.expose().into(), row.field(holder), row.field(expiry)))
            .collect();
        let answers = match vault.tokenize_batch(&requests).await {
            Ok(answers) => answers,
            Err(error) => return results.stop(&input, &rows, error),
        };
        for (row, answer) in rows.iter().zip(answers) {
            let cells = |answer: &vault_client::TokenizeAnswer| {
                [answer.token.clone(), answer.masked_pan.clone(), answer.created.to_string()]
            };
            results.push(row.line, answer, cells, &mut input)?;
        }
        results.flush()?;
    }
    results.end(&input)
}

/// Swaps every token of `file` back for its card number.
pub(super) async fn detokenize(
    vault: &VaultClient,
    output: &Output,
    file: &Path,
    batch: usize,
) -> Result<(), Complaint> {
    let mut input = Input::open(file, "token", output)?;
    let mut results = Results::begin(output, ["line", "token", "pan", "expiry_date"])?;
    while let Some(rows) = input.batch(batch)? {
        let tokens: Vec<_> = rows.iter().map(|row| row.value.expose()).collect();
        let answers = match vault.detokenize_batch(&tokens).await {
            Ok(answers) => answers,
            Err(error) => return results.stop(&input, &rows, error),
        };
        for (row, answer) in rows.iter().zip(answers) {
            let answer =
                answer.map(|card| DetokenizeAnswer::Full { pan: card.pan, expiry_date: card.expiry_date });
            let cells = |answer: &DetokenizeAnswer| {
                let (pan, expiry) = match answer {
                    DetokenizeAnswer::Full { pan, expiry_date } => {
                        (pan.expose(), expiry_date.as_ref().map_or("", Sensitive::expose))
                    }
                    DetokenizeAnswer::Masked { masked_pan } => (masked_pan.as_str(), ""),
                };
                [row.value.expose().to_owned(), pan.to_owned(), expiry.to_owned()]
            };
            results.push(row.line, answer, cells, &mut input)?;
        }
        results.flush()?;
    }
    results.end(&input)
}

/// The lines of a file, and how it goes with them.
struct Input {
    lines: Lines<File>,
    done: u64,
    failed: u64,
    progress: ProgressBar,
}

impl Input {
    /// Opens `path`, whose values stand alone or in the column `name`.
    fn open(path: &Path, name: &str, output: &Output) -> Result<Self, Complaint> {
        let file = if path.as_os_str() == "-" { input::stdin() } else { open(path) }?;
        let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
        let lines = Lines::new(file, name).map_err(|error| complaint(error, name, 0))?;
        Ok(Self { lines, done: 0, failed: 0, progress: progress(length, output.shows_progress()) })
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.lines.column(name)
    }

    /// The next rows, at most `most`; `None` at the end.
    fn batch(&mut self, most: usize) -> Result<Option<Vec<Row>>, Complaint> {
        let mut rows = Vec::new();
        while rows.len() < most {
            let row = self.lines.next_row().map_err(|error| complaint(error, "", self.done))?;
            self.progress.set_position(self.lines.bytes());
            match row {
                None => break,
                Some(Ok(row)) => rows.push(row),
                Some(Err(NoValue { line })) => {
                    self.fail_at(line, "it holds no value that is UTF-8: nothing was sent");
                }
            }
        }
        Ok((!rows.is_empty()).then_some(rows))
    }

    fn fail_at(&mut self, line: u64, why: &str) {
        self.failed += 1;
        let why = printable(why);
        self.progress.suspend(|| {
            let _ = writeln!(io::stderr(), "vaultctl: line {line}: {why}");
        });
    }
}

/// What to say of a file whose values are `name`s and that is not read on, after `done` lines.
fn complaint(error: LinesError, name: &str, done: u64) -> Complaint {
    Complaint::Failed(match error {
        LinesError::Read(error) => return Complaint::failed("cannot read the file", error),
        LinesError::TooLong(line) => {
            format!("stopped at line {line}, which has more than {MAX_LINE_BYTES} bytes, after {done} lines")
        }
        LinesError::NoColumn => format!(
            "the first line of a CSV file must name its columns, and one must be `{name}`: nothing was sent"
        ),
    })
}

/// A line that failed, as in an answer of the API.
#[derive(Serialize)]
struct Failed {
    error: ItemError,
}

/// What is written, batch by batch.
struct Results<'a> {
    output: &'a Output,
    text: Zeroizing<Vec<u8>>,
    is_first: bool,
}

impl<'a> Results<'a> {
    fn begin<const N: usize>(output: &'a Output, head: [&str; N]) -> Result<Self, Complaint> {
        let mut results = Self { output, text: Zeroizing::new(Vec::new()), is_first: true };
        if output.is_json() {
            results.text.extend_from_slice(b"{\"results\":[\n");
        } else {
            results.csv(head.map(str::to_owned))?;
        }
        Ok(results)
    }

    /// Appends the result of one line.
    fn push<T: Serialize>(
        &mut self,
        line: u64,
        result: Result<T, ItemError>,
        cells: impl FnOnce(&T) -> [String; 3],
        input: &mut Input,
    ) -> Result<(), Complaint> {
        match &result {
            Ok(_) => input.done += 1,
            Err(error) => input.fail_at(line, &error.to_string()),
        }
        if self.output.is_json() {
            if !std::mem::take(&mut self.is_first) {
                self.text.extend_from_slice(b",");
            }
            let text = match result {
                Ok(answer) => json(&answer)?,
                Err(error) => json(&Failed { error })?,
            };
            self.text.extend_from_slice(text.as_bytes());
        } else if let Ok(answer) = result {
            let [first, second, third] = cells(&answer);
            self.csv([line.to_string(), first, second, third])?;
        }
        Ok(())
    }

    fn csv<const N: usize>(&mut self, cells: [String; N]) -> Result<(), Complaint> {
        let mut writer = WriterBuilder::new().buffer_capacity(512).from_writer(&mut *self.text);
        let written = writer.write_record(cells.map(Zeroizing::new).iter().map(|cell| cell.as_bytes()));
        written
            .and_then(|()| Ok(writer.flush()?))
            .map_err(|error| Complaint::failed("cannot write CSV", error))
    }

    fn flush(&mut self) -> Result<(), Complaint> {
        self.output.bytes(&self.text)?;
        self.text.clear();
        Ok(())
    }

    /// Ends what is written.
    fn close(&mut self, input: &Input) -> Result<(), Complaint> {
        if self.output.is_json() {
            self.text.extend_from_slice(b"]}\n");
        }
        input.progress.finish_and_clear();
        self.flush()
    }

    /// It goes no further than the lines before `rows`, because of `error`.
    fn stop(mut self, input: &Input, rows: &[Row], error: vault_client::Error) -> Result<(), Complaint> {
        self.close(input)?;
        let line = rows.first().map_or(input.lines.line(), |row| row.line);
        let what = format!("stopped at line {line}, after {} done", input.done);
        Err(Complaint::failed(&what, Complaint::from(error)))
    }

    /// Every line was sent.
    fn end(mut self, input: &Input) -> Result<(), Complaint> {
        self.close(input)?;
        match input.failed {
            0 => Ok(()),
            failed => {
                let total = input.done + failed;
                Err(Complaint::Failed(format!("{failed} of {total} lines failed; they are named above")))
            }
        }
    }
}

fn open(path: &Path) -> Result<File, Complaint> {
    File::open(path).map_err(|error| Complaint::file("read", path, &error))
}

fn progress(length: Option<u64>, is_shown: bool) -> ProgressBar {
    if !is_shown {
        return ProgressBar::hidden();
    }
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
