//! Aligned columns for people.

use jiff::Timestamp;
use unicode_width::UnicodeWidthStr;
use zeroize::Zeroizing;

const GAP: &str = "  ";

/// Rows under a head, as wide as they need to be.
pub(crate) struct Table {
    rows: Vec<Vec<Zeroizing<String>>>,
}

impl Table {
    /// A table with these names over its columns.
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(|name| Zeroizing::new(name.to_owned())).into()] }
    }

    /// Appends a row, as long as the head.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| Zeroizing::new(printable(&Zeroizing::new(cell)))).into());
    }

    /// The lines.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.as_str().width()).max()
        };
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let mut text = Zeroizing::new(String::new());
        for row in &self.rows {
            for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
                text.push_str(cell);
                if place + 1 < columns {
                    text.push_str(&blanks(cell, *width));
                    text.push_str(GAP);
                }
            }
            text.push('\n');
        }
        text
    }
}

/// What makes `cell` as wide as `width`.
pub(crate) fn blanks(cell: &str, width: usize) -> String {
    " ".repeat(width.saturating_sub(cell.width()))
}

/// Names and values, one pair a line. Values that are not there are left out.
pub(crate) fn details<const N: usize>(pairs: [(&str, Option<String>); N]) -> Zeroizing<String> {
    let mut table = Table { rows: Vec::new() };
    for (name, value) in pairs {
        if let Some(value) = value {
            table.row([name.to_owned(), value]);
        }
    }
    table.text()
}

/// The value, or a dash if there is none.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// When a token ends.
pub(crate) fn or_never(end: Option<Timestamp>) -> String {
    end.map_or_else(|| "never".to_owned(), |end| end.to_string())
}

/// `text` without what a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    let is_obeyed = |c: char| {
        // Bidirectional controls show text in another order than it has.
        c.is_control()
            || matches!(
                c,
                '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            )
    };
    text.chars().map(|c| if is_obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_what_a_terminal_shows() {
        let mut table = Table::new(["NAME", "VERSION", "STATE"]);
        table.row(["日本".to_owned(), "1".to_owned(), "active".to_owned()]);
        table.row(["audit-log".to_owned(), "12".to_owned(), "x".to_owned()]);
        assert_eq!(
            *table.text(),
            "NAME       VERSION  STATE\n日本       1        active\naudit-log  12       x\n"
        );
    }

    #[test]
    fn no_cell_commands_the_terminal() {
        let text =
            details([("holder", Some("\u{1b}]0;x\u{7}\u{202e}\u{200f}\n".to_owned())), ("none", None)]);
        assert_eq!(*text, "holder  �]0;x����\n");
    }
}
