//! Files of card numbers or tokens: lines in, batches to the vault, results out in the same order.

use std::path::Path;

use csv::WriterBuilder;
use serde::Serialize;
use vault_client::{
    Code, Detokenized, ItemError, Sensitive, VaultClient,
    api::{self, DetokenizeAnswer},
};
use zeroize::Zeroizing;

use super::{
    batch::{Batch, Input},
    cards::{CHANGE, Wishes, wants_more},
};
use crate::{
    complaint::{Complaint, note},
    lines::{Row, Unsent, Why},
    output::{Output, json},
};

/// What a file holds.
struct Kind {
    /// The column that it must have.
    column: &'static str,
    /// All that it may have; `None` if what is beside that one does not matter.
    columns: Option<&'static [&'static str]>,
    /// The columns of what is written.
    head: [&'static str; 4],
    /// What a line without a value is.
    no_value: Code,
    /// Whether something is made that is lost if nobody reads of it.
    makes: bool,
}

const CARDS: Kind = Kind {
    column: "pan",
    // The first two as `detokenize --file` writes them.
    columns: Some(&["line", "token", "pan", "holder", "expiry_date"]),
    head: ["line", "token", "masked_pan", "created"],
    no_value: Code::InvalidPan,
    makes: true,
};

const TOKENS: Kind = Kind {
    column: "token",
    columns: None,
    head: ["line", "token", "pan", "expiry_date"],
    no_value: Code::InvalidToken,
    makes: false,
};

/// Swaps every card number of `file` for a token.
pub(super) async fn tokenize(
    vault: &VaultClient,
    output: &Output,
    file: &Path,
    batch: usize,
    wishes: &Wishes,
) -> Result<(), Complaint> {
    let mut input = Input::open(file, CARDS.column, CARDS.columns)?;
    let mut results = Results::begin(output, &CARDS)?;
    let (holder, expiry) = (input.column("holder"), input.column("expiry_date"));
    let request = |row: Row| {
        let (holder, expiry) = (row.field(holder)?, row.field(expiry)?);
        Ok(wishes.request(row.value, holder, expiry))
    };
    let added = wishes.bytes()?;
    let mut unchanged = 0_u64;
    while let Some(batch) = input.batch(batch, added, request) {
        // Writes the names of the columns: no token is made for a reader that has gone before it had these.
        results.flush(&input, batch.first_line())?;
        let answers = match &*batch.items {
            [] => Ok(Vec::new()),
            requests => vault.tokenize_batch(requests).await,
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => return results.stop(&input, batch.first_line(), error),
        };
        for (request, answer) in batch.items.iter().zip(&answers) {
            let is_old = answer.as_ref().is_ok_and(|answer| !answer.created);
            unchanged += u64::from(is_old && wants_more(request));
        }
        results.batch(&mut input, &batch, answers, |_, answer| {
            [answer.token.clone(), answer.masked_pan.clone(), answer.created.to_string()]
        })?;
    }
    let ended = results.end(input);
    if unchanged > 0 {
        note(&format!(
            "cards that were seen before, and whose records were not changed: {unchanged}; {CHANGE}"
        ));
    }
    ended
}

/// Swaps every token of `file` back for its card number, as far as the guards let the caller: it is locked where it asks for
/// many more.
pub(super) async fn detokenize(
    vault: &VaultClient,
    output: &Output,
    file: &Path,
    batch: usize,
) -> Result<(), Complaint> {
    let mut input = Input::open(file, TOKENS.column, TOKENS.columns)?;
    let mut results = Results::begin(output, &TOKENS)?;
    let left = || vault.rate_limit().and_then(|limit| usize::try_from(limit.remaining).ok());
    // What counts already is free, also where nothing is left.
    while let Some(batch) = input.batch(left().unwrap_or(batch).clamp(1, batch), 0, |row| Ok(row.value)) {
        let tokens: Vec<_> = batch.items.iter().map(Sensitive::expose).collect();
        let answers = match &*tokens {
            [] => Ok(Vec::new()),
            tokens => vault.detokenize_batch(tokens).await,
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => return results.stop(&input, batch.first_line(), error),
        };
        let mut errors = answers.iter().filter_map(|answer| answer.as_ref().err());
        let limited = errors.find(|error| error.code() == Some(Code::RateLimited)).map(ToString::to_string);
        let full =
            |card: Detokenized| DetokenizeAnswer::Full { pan: card.pan, expiry_date: card.expiry_date };
        let answers = answers.into_iter().map(|answer| answer.map(full)).collect();
        results.batch(&mut input, &batch, answers, |token, answer| {
            let (pan, expiry) = match answer {
                DetokenizeAnswer::Full { pan, expiry_date } => {
                    (pan.expose(), expiry_date.as_ref().map_or("", Sensitive::expose))
                }
                DetokenizeAnswer::Masked { masked_pan } => (masked_pan.as_str(), ""),
            };
            [token.expose().to_owned(), pan.to_owned(), expiry.to_owned()]
        })?;
        if let Some(limited) = limited {
            let whys: Vec<_> = failures(&input).into_iter().chain([limited]).collect();
            return results.stop(&input, input.lines.line() + 1, Complaint::Failed(whys.join("; ")));
        }
    }
    results.end(input)
}

/// A line that failed, as in an answer of the API.
#[derive(Serialize)]
struct Failed<E> {
    error: E,
}

/// What is written, batch by batch.
struct Results<'a> {
    output: &'a Output,
    text: Zeroizing<Vec<u8>>,
    is_first: bool,
    kind: &'static Kind,
}

impl<'a> Results<'a> {
    fn begin(output: &'a Output, kind: &'static Kind) -> Result<Self, Complaint> {
        let mut results = Self { output, text: Zeroizing::new(Vec::new()), is_first: true, kind };
        if output.is_json() {
            results.text.extend_from_slice(b"{\"results\":[\n");
        } else {
            results.csv(kind.head.map(str::to_owned))?;
        }
        Ok(results)
    }

    /// Writes the results of `batch`, whose items have these `answers`.
    fn batch<I, T: Serialize>(
        &mut self,
        input: &mut Input,
        batch: &Batch<I>,
        answers: Vec<Result<T, ItemError>>,
        cells: impl Fn(&I, &T) -> [String; 3],
    ) -> Result<(), Complaint> {
        let mut answered = batch.items.iter().zip(answers);
        for line in &batch.lines {
            match (line, line.ok().and_then(|_| answered.next())) {
                (Ok(line), Some((item, Ok(answer)))) => {
                    input.done += 1;
                    self.done(*line, &answer, |answer| cells(item, answer))?;
                }
                (Ok(line), Some((_, Err(error)))) => {
                    input.fail_at(*line, &error.to_string());
                    self.failed(error)?;
                }
                (Err(Unsent { line, why }), _) => {
                    let code = match why {
                        Why::TooLong | Why::NoValue => self.kind.no_value,
                        Why::NotUtf8 | Why::TooManyFields | Why::GoesOn => Code::InvalidRequest,
                    };
                    input.fail_at(*line, &why.to_string());
                    self.failed(api::ItemError::new(code, why.to_string()))?;
                }
                // The client gives an answer for each item.
                (Ok(_), None) => {}
            }
        }
        self.flush(input, input.lines.line() + 1)
    }

    /// Appends what became of the line `line`.
    fn done<T: Serialize>(
        &mut self,
        line: u64,
        answer: &T,
        cells: impl FnOnce(&T) -> [String; 3],
    ) -> Result<(), Complaint> {
        if self.output.is_json() {
            return self.json(answer);
        }
        let [first, second, third] = cells(answer);
        self.csv([line.to_string(), first, second, third])
    }

    /// Appends the `error` of a line that failed, if it is to have a result.
    fn failed(&mut self, error: impl Serialize) -> Result<(), Complaint> {
        if self.output.is_json() { self.json(&Failed { error }) } else { Ok(()) }
    }

    fn json(&mut self, result: &impl Serialize) -> Result<(), Complaint> {
        if !std::mem::take(&mut self.is_first) {
            self.text.extend_from_slice(b",");
        }
        self.text.extend_from_slice(json(result)?.as_bytes());
        Ok(())
    }

    fn csv<const N: usize>(&mut self, cells: [String; N]) -> Result<(), Complaint> {
        let mut writer = WriterBuilder::new().buffer_capacity(512).from_writer(&mut *self.text);
        let written = writer.write_record(cells.map(Zeroizing::new).iter().map(|cell| cell.as_bytes()));
        written
            .and_then(|()| Ok(writer.flush()?))
            .map_err(|error| Complaint::failed("cannot write CSV", error))
    }

    /// Writes what there is. `line` is the first that was not sent.
    fn flush(&mut self, input: &Input, line: u64) -> Result<(), Complaint> {
        // The bar makes way, for it may be the same terminal.
        input.progress.suspend(|| self.write()).map_err(|error| {
            let is_failure = self.kind.makes || !matches!(error, Complaint::ReaderGone);
            let stopped =
                is_failure.then(|| format!("{error}: stopped at line {line}, after {} done", input.done));
            let whys: Vec<_> = failures(input).into_iter().chain(stopped).collect();
            if whys.is_empty() { error } else { Complaint::Failed(whys.join("; ")) }
        })
    }

    fn write(&mut self) -> Result<(), Complaint> {
        self.output.bytes(&self.text)?;
        self.text.clear();
        Ok(())
    }

    fn close(&mut self, input: &Input) {
        if self.output.is_json() {
            self.text.extend_from_slice(b"]}\n");
        }
        input.progress.finish_and_clear();
    }

    /// It goes no further than the lines before `line`, because of `error`.
    fn stop(mut self, input: &Input, line: u64, error: impl Into<Complaint>) -> Result<(), Complaint> {
        self.close(input);
        // Whether somebody reads it or not, this is why.
        let _ = self.write();
        let what = format!("stopped at line {line}, after {} done", input.done);
        Err(Complaint::failed(&what, error.into()))
    }

    /// Every line that could be read was sent.
    fn end(mut self, mut input: Input) -> Result<(), Complaint> {
        let next_line = input.lines.line() + 1;
        if let Some(complaint) = input.broken.take() {
            return self.stop(&input, next_line, complaint);
        }
        self.close(&input);
        match input.done + input.failed {
            0 => self.write(),
            _ => self.flush(&input, next_line),
        }?;
        failures(&input).map_or(Ok(()), |failures| Err(Complaint::Failed(failures)))
    }
}

/// How many lines failed, if any did.
fn failures(input: &Input) -> Option<String> {
    let (failed, total) = (input.failed, input.done + input.failed);
    (failed > 0).then(|| format!("{failed} of {total} lines failed; they are named above"))
}
