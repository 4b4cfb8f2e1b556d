//! Files of card numbers or tokens: lines in, batches to the vault, results out in the same order.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    time::Duration,
};

use csv::{ByteRecord, ReaderBuilder, WriterBuilder};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use vault_client::{ItemError, Sensitive, VaultClient, api::DetokenizeAnswer};
use zeroize::Zeroizing;

use super::cards::Wishes;
use crate::{
    complaint::Complaint,
    input,
    output::{Output, json},
    table::printable,
};

/// The longest line: a holder's name has 200 characters of up to 4 bytes.
const MAX_LINE_BYTES: u64 = 4_096;

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

/// One line that holds something.
struct Row {
    line: u64,
    value: Sensitive,
    fields: ByteRecord,
}

impl Row {
    /// A field of CSV that is there and not empty.
    fn field(&self, column: Option<usize>) -> Option<Sensitive> {
        let text = std::str::from_utf8(self.fields.get(column?)?).ok()?.trim();
        (!text.is_empty()).then(|| text.into())
    }
}

/// The lines of a file, and how it goes with them.
struct Input {
    reader: BufReader<File>,
    /// The names in its first line, if that is CSV.
    names: Option<ByteRecord>,
    /// The first line, if it is one of the values.
    first: Option<Zeroizing<Vec<u8>>>,
    /// Where the values are.
    column: usize,
    line: u64,
    done: u64,
    failed: u64,
    progress: ProgressBar,
}

impl Input {
    /// Opens `path`, whose values stand alone or in the column `name`.
    fn open(path: &Path, name: &str, output: &Output) -> Result<Self, Complaint> {
        let file = if path.as_os_str() == "-" { input::stdin() } else { open(path) }?;
        let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
        let mut input = Self {
            reader: BufReader::new(file),
            names: None,
            first: None,
            column: 0,
            line: 0,
            done: 0,
            failed: 0,
            progress: progress(length, output.shows_progress()),
        };
        if let Some(first) = input.next_line()? {
            let names = fields(&first);
            // Neither a card number nor a token has a comma, or is the name of a column.
            match names.iter().position(|cell| cell.eq_ignore_ascii_case(name.as_bytes())) {
                Some(column) => (input.column, input.names) = (column, Some(names)),
                None if names.len() > 1 => {
                    return Err(Complaint::Failed(format!(
                        "the first line of a CSV file must name its columns, and one must be `{name}`: nothing was sent"
                    )));
                }
                None => input.first = Some(first),
            }
        }
        Ok(input)
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.names.as_ref()?.iter().position(|cell| cell.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The next rows, at most `most`; `None` at the end.
    fn batch(&mut self, most: usize) -> Result<Option<Vec<Row>>, Complaint> {
        let mut rows = Vec::new();
        while rows.len() < most {
            let Some(text) = self.first.take().map_or_else(|| self.next_line(), |first| Ok(Some(first)))?
            else {
                break;
            };
            let fields = if self.names.is_some() { fields(&text) } else { ByteRecord::from(vec![&*text]) };
            match fields.get(self.column).and_then(|cell| std::str::from_utf8(cell).ok()).map(str::trim) {
                Some(value) if !value.is_empty() => {
                    rows.push(Row { line: self.line, value: value.into(), fields });
                }
                _ => self.fail("it holds no value that is UTF-8: nothing was sent"),
            }
        }
        Ok((!rows.is_empty()).then_some(rows))
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Complaint> {
        loop {
            let mut text = Zeroizing::new(Vec::new());
            let count = (&mut self.reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut text);
            let count = count.map_err(|error| Complaint::failed("cannot read the file", error))?;
            if count == 0 {
                return Ok(None);
            }
            self.line += 1;
            self.progress.inc(u64::try_from(count).unwrap_or(u64::MAX));
            if !text.ends_with(b"\n") && u64::try_from(count).is_ok_and(|count| count == MAX_LINE_BYTES) {
                let line = self.line;
                return Err(Complaint::Failed(format!(
                    "stopped at line {line}, which has more than {MAX_LINE_BYTES} bytes, after {} lines",
                    self.done
                )));
            }
            if text.iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Ok(Some(text));
            }
        }
    }

    fn fail(&mut self, why: &str) {
        self.fail_at(self.line, why);
    }

    fn fail_at(&mut self, line: u64, why: &str) {
        self.failed += 1;
        let why = printable(why);
        self.progress.suspend(|| {
            let _ = writeln!(io::stderr(), "vaultctl: line {line}: {why}");
        });
    }
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
        let line = rows.first().map_or(input.line, |row| row.line);
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

/// The cells of one line of CSV.
fn fields(line: &[u8]) -> ByteRecord {
    let mut reader =
        ReaderBuilder::new().has_headers(false).flexible(true).buffer_capacity(512).from_reader(line);
    let mut fields = ByteRecord::new();
    // Any bytes are CSV, and a slice has no I/O errors.
    let _ = reader.read_byte_record(&mut fields);
    fields.trim();
    fields
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
