//! Lines of a file of card numbers or tokens: each alone, or in a column of CSV.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read},
};

use csv::{ByteRecord, ReaderBuilder};
use vault_client::Sensitive;
use zeroize::Zeroizing;

/// The longest line, its line feed not counted: a holder's name has 200 characters of up to 4 bytes.
pub const MAX_LINE_BYTES: u64 = 4_096;
/// What some programs write before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
    /// It is longer than [`MAX_LINE_BYTES`].
    TooLong,
    /// It holds no value that is UTF-8.
    NoValue,
    /// A field beside the value is not UTF-8.
    NotUtf8,
    /// It has fields that belong to no column.
    TooManyFields,
    /// It ends inside quotes, or there is a carriage return in it: a field or a row goes on where none can.
    GoesOn,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "it has more than {MAX_LINE_BYTES} bytes: nothing was sent"),
            Self::NoValue => f.write_str("it holds no value that is UTF-8: nothing was sent"),
            Self::NotUtf8 => f.write_str("a field is not UTF-8: nothing was sent"),
            Self::TooManyFields => f.write_str("it has more fields than the first line: nothing was sent"),
            Self::GoesOn => f.write_str(
                "it ends inside quotes or has a carriage return in it: nothing was sent; lines end in a line feed, and \
                 no field has one",
            ),
        }
    }
}

/// Why a file is not read on.
#[derive(Debug)]
pub enum LinesError {
    /// The system's reason.
    Read(io::Error),
    /// The line of this number, which may name the columns, is longer than [`MAX_LINE_BYTES`].
    TooLong(u64),
    /// The first line is a row, of CSV or with another separator, and names no column as is needed.
    NoColumn,
    /// The line of this number, which may name the columns, has no end where its line feed is, as [`Why::GoesOn`] says.
    GoesOn(u64),
}

/// The bytes of a line that is not blank, as far as they are kept.
struct Line {
    bytes: Zeroizing<Vec<u8>>,
    /// Whether there is more of it than is kept.
    is_cut: bool,
}

/// The lines of a file.
pub struct Lines<R> {
    reader: BufReader<R>,
    /// The names in its first line, if that is CSV.
    names: Option<ByteRecord>,
    /// The first line, if it is one of the values.
    first: Option<Line>,
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
            let Some(names) = fields(&first.bytes) else {
                let line = lines.line;
                return Err(if first.is_cut { LinesError::TooLong(line) } else { LinesError::GoesOn(line) });
            };
            // Neither a card number nor a token has a comma, or is the name of a column.
            match names.iter().position(|cell| cell.eq_ignore_ascii_case(name.as_bytes())) {
                column if first.is_cut && (column.is_some() || names.len() > 1) => {
                    return Err(LinesError::TooLong(lines.line));
                }
                Some(column) => (lines.column, lines.names) = (column, Some(names)),
                // As some spreadsheets separate cells, which no value has in it.
                None if names.len() > 1
                    || first.bytes.trim_ascii().iter().any(|byte| b";\t".contains(byte)) =>
                {
                    return Err(LinesError::NoColumn);
                }
                None => lines.first = Some(first),
            }
        }
        Ok(lines)
    }

    /// The place of the column `name`, if the file is CSV and has it.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.names.as_ref()?.iter().position(|cell| cell.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The first column that is none of `known`, if the file is CSV and has one: its place, from 1, and its name.
    pub fn column_beside(&self, known: &[&str]) -> Option<(usize, String)> {
        let is_known = |cell: &[u8]| known.iter().any(|name| cell.eq_ignore_ascii_case(name.as_bytes()));
        let mut cells = self.names.as_ref()?.iter().zip(1..);
        let (cell, place) = cells.find(|(cell, _)| !is_known(cell))?;
        Some((place, String::from_utf8_lossy(cell).into_owned()))
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
    /// [`LinesError::Read`]; then there are no further rows.
    pub fn next_row(&mut self) -> Result<Option<Result<Row, Unsent>>, LinesError> {
        let first = self.first.take();
        let Some(text) = first.map_or_else(|| self.next_line(), |first| Ok(Some(first)))? else {
            return Ok(None);
        };
        Ok(Some(self.row(&text).map_err(|why| Unsent { line: self.line, why })))
    }

    fn row(&self, text: &Line) -> Result<Row, Why> {
        if text.is_cut {
            return Err(Why::TooLong);
        }
        let fields = match &self.names {
            Some(names) => {
                let fields = fields(&text.bytes).ok_or(Why::GoesOn)?;
                Some(fields).filter(|fields| fields.len() <= names.len()).ok_or(Why::TooManyFields)?
            }
            None => ByteRecord::from(vec![&*text.bytes]),
        };
        let cell = fields.get(self.column).and_then(|cell| std::str::from_utf8(cell).ok()).map(str::trim);
        let value = cell.filter(|value| !value.is_empty()).map(Sensitive::from).ok_or(Why::NoValue)?;
        Ok(Row { line: self.line, value, fields })
    }

    /// The next line that is not blank.
    fn next_line(&mut self) -> Result<Option<Line>, LinesError> {
        loop {
            let mut bytes = self.piece()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            if self.line == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            let is_blank = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_whitespace);
            let (mut line_is_blank, mut is_cut) = (is_blank(&bytes), false);
            let mut goes_on = !bytes.ends_with(b"\n");
            while goes_on {
                let more = self.piece()?;
                goes_on = !more.is_empty() && !more.ends_with(b"\n");
                is_cut |= !matches!(&**more, b"" | b"\n");
                line_is_blank &= is_blank(&more);
            }
            self.line += 1;
            if !line_is_blank {
                return Ok(Some(Line { bytes, is_cut }));
            }
        }
    }

    /// The next bytes up to a line feed, at most [`MAX_LINE_BYTES`]; none at the end.
    fn piece(&mut self) -> Result<Zeroizing<Vec<u8>>, LinesError> {
        let mut bytes = Zeroizing::new(Vec::new());
        let count = (&mut self.reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes);
        self.bytes += u64::try_from(count.map_err(LinesError::Read)?).unwrap_or(u64::MAX);
        Ok(bytes)
    }
}

/// The cells of one line of CSV; `None` if it goes on behind its line feed, inside quotes, or has a carriage return, which would
/// end a row.
fn fields(line: &[u8]) -> Option<ByteRecord> {
    const END: &[u8] = b"end";
    let line = line.trim_ascii_end();
    // A cell of our own shows whether the line's own are at their end.
    let marked = Zeroizing::new([line, b",", END].concat());
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(512)
        .from_reader(marked.as_slice());
    let mut fields = ByteRecord::new();
    // Any bytes are CSV, and a slice has no I/O errors.
    let _ = reader.read_byte_record(&mut fields);
    let cells = fields.len().checked_sub(1)?;
    let has_ended = fields.get(cells) == Some(END) && !line.contains(&b'\r');
    fields.truncate(cells);
    fields.trim();
    has_ended.then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Vec<Result<String, Why>> {
        let mut lines = Lines::new(text.as_bytes(), "pan").ok().unwrap();
        let mut rows = Vec::new();
        while let Some(row) = lines.next_row().ok().unwrap() {
            rows.push(row.map(|row| row.value.expose().to_owned()).map_err(|unsent| unsent.why));
        }
        rows
    }

    #[test]
    fn a_byte_order_mark_is_no_value() {
        for nothing in ["\u{feff}", "\u{feff}\r\n\n"] {
            assert_eq!(rows(nothing), []);
        }
        for one in ["\t1\t\n", "\u{feff}1\n", "\u{feff}pan\r\n1", "\u{feff}\n1"] {
            assert_eq!(rows(one), [Ok("1".to_owned())], "{one:?}");
        }
    }

    #[test]
    fn a_row_of_another_separator_is_told_before_anything_is_sent() {
        for text in ["pan;holder\n1;Ada\n", "1\tAda\n", "1;\n"] {
            assert!(matches!(Lines::new(text.as_bytes(), "pan"), Err(LinesError::NoColumn)), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_goes_on_is_told_and_costs_no_other() {
        let given = rows("pan,holder\n1,\"Ada\nLovelace\"\n2,\"Bob \"\"B\"\" B\"\r\n3\r4,x\n5,a\"b\n");
        let value = |text: &str| Ok(text.to_owned());
        let cut = Err(Why::GoesOn);
        assert_eq!(given, [cut.clone(), value("Lovelace\""), value("2"), cut, value("5")]);
        for text in ["pan\r1\r2", "1\r2\n", "\"pan\nholder\"\n1"] {
            assert!(matches!(Lines::new(text.as_bytes(), "pan"), Err(LinesError::GoesOn(1))), "{text:?}");
        }
    }
}
