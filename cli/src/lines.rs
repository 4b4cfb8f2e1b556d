//! Lines of a file of card numbers or tokens: each alone, or in a column of CSV.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read},
};

use csv::{ByteRecord, ReaderBuilder};
use vault_client::Sensitive;
use zeroize::Zeroizing;

/// The longest line: a holder's name has 200 characters of up to 4 bytes.
pub const MAX_LINE_BYTES: u64 = 4_096;

/// One line that holds something.
pub struct Row {
    /// Its number in the file, from 1.
    pub line: u64,
    /// The value.
    pub value: Sensitive,
    fields: ByteRecord,
}

impl Row {
    /// A field of CSV that is there and not empty.
    ///
    /// # Errors
    /// [`Why::NotUtf8`].
    pub fn field(&self, column: Option<usize>) -> Result<Option<Sensitive>, Unsent> {
        let Some(field) = column.and_then(|column| self.fields.get(column)) else { return Ok(None) };
        let text = std::str::from_utf8(field).map_err(|_| Unsent { line: self.line, why: Why::NotUtf8 })?;
        Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(Sensitive::from))
    }
}

/// A line that is not blank and of which nothing can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Its number in the file, from 1.
    pub line: u64,
    /// The reason.
    pub why: Why,
}

/// Why nothing of a line can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It holds no value that is UTF-8.
    NoValue,
    /// A field beside the value is not UTF-8.
    NotUtf8,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoValue => "it holds no value that is UTF-8: nothing was sent",
            Self::NotUtf8 => "a field is not UTF-8: nothing was sent",
        })
    }
}

/// Why a file is not read on.
#[derive(Debug)]
pub enum LinesError {
    /// The system's reason.
    Read(io::Error),
    /// The line of this number is longer than [`MAX_LINE_BYTES`].
    TooLong(u64),
    /// The first line is CSV and names no column as is needed.
    NoColumn,
}

/// The lines of a file.
pub struct Lines<R> {
    reader: BufReader<R>,
    /// The names in its first line, if that is CSV.
    names: Option<ByteRecord>,
    /// The first line, if it is one of the values.
    first: Option<Zeroizing<Vec<u8>>>,
    /// Where the values are.
    column: usize,
    line: u64,
    bytes: u64,
}

impl<R: Read> Lines<R> {
    /// The lines of `reader`, whose values stand alone or in the column `name`.
    ///
    /// # Errors
    /// [`LinesError`].
    pub fn new(reader: R, name: &str) -> Result<Self, LinesError> {
        let reader = BufReader::new(reader);
        let mut lines = Self { reader, names: None, first: None, column: 0, line: 0, bytes: 0 };
        if let Some(first) = lines.next_line()? {
            let names = fields(&first);
            // Neither a card number nor a token has a comma, or is the name of a column.
            match names.iter().position(|cell| cell.eq_ignore_ascii_case(name.as_bytes())) {
                Some(column) => (lines.column, lines.names) = (column, Some(names)),
                None if names.len() > 1 => return Err(LinesError::NoColumn),
                None => lines.first = Some(first),
            }
        }
        Ok(lines)
    }

    /// The place of the column `name`, if the file is CSV and has it.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.names.as_ref()?.iter().position(|cell| cell.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The number of the line that was read last.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// How many bytes were read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next row that is not blank; `None` at the end.
    ///
    /// # Errors
    /// [`LinesError`]; then there are no further rows.
    pub fn next_row(&mut self) -> Result<Option<Result<Row, Unsent>>, LinesError> {
        let first = self.first.take();
        let Some(text) = first.map_or_else(|| self.next_line(), |first| Ok(Some(first)))? else {
            return Ok(None);
        };
        let line = self.line;
        let fields = if self.names.is_some() { fields(&text) } else { ByteRecord::from(vec![&*text]) };
        let cell = fields.get(self.column).and_then(|cell| std::str::from_utf8(cell).ok()).map(str::trim);
        let value = cell.filter(|value| !value.is_empty()).map(Sensitive::from);
        let row = value.map(|value| Row { line, value, fields });
        Ok(Some(row.ok_or(Unsent { line, why: Why::NoValue })))
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, LinesError> {
        loop {
            let mut text = Zeroizing::new(Vec::new());
            let count = (&mut self.reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut text);
            let count = u64::try_from(count.map_err(LinesError::Read)?).unwrap_or(u64::MAX);
            if count == 0 {
                return Ok(None);
            }
            self.line += 1;
            self.bytes += count;
            if !text.ends_with(b"\n") && count == MAX_LINE_BYTES {
                return Err(LinesError::TooLong(self.line));
            }
            if text.iter().any(|byte| !byte.is_ascii_whitespace()) {
                return Ok(Some(text));
            }
        }
    }
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
