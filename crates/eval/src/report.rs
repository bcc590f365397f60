//! Tables in plain text.

use std::fmt;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table that aligns itself; units belong in the header.
///
/// ```
/// use bantam_eval::{Align, Table};
/// let mut table = Table::new([("format", Align::Left), ("MiB", Align::Right)]);
/// table.row(["f32", "513.1"]);
/// table.row(["int4", "88.0"]);
/// assert_eq!(table.to_string(), "\
/// format    MiB
/// ─────────────
/// f32     513.1
/// int4     88.0
/// ");
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    titles: Vec<String>,
    align: Vec<Align>,
    rows: Vec<Vec<String>>,
}

/// Spaces between columns.
const GAP: &str = "  ";

impl Table {
    /// An empty table with these columns.
    pub fn new<T: Into<String>>(columns: impl IntoIterator<Item = (T, Align)>) -> Self {
        let (titles, align) =
            columns.into_iter().map(|(title, align)| (title.into(), align)).unzip();
        Self { titles, align, rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.titles.len(), String::new());
        self.rows.push(row);
    }

    /// Characters of each column's widest cell.
    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let rows = std::iter::once(&self.titles).chain(&self.rows);
            rows.map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        (0..self.titles.len()).map(width).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let line = |row: &[String]| {
            let cell = |((text, &width), align): ((&String, &usize), &Align)| match align {
                Align::Left => format!("{text:<width$}"),
                Align::Right => format!("{text:>width$}"),
            };
            let cells: Vec<String> = row.iter().zip(&widths).zip(&self.align).map(cell).collect();
            cells.join(GAP).trim_end().to_owned()
        };
        writeln!(f, "{}", line(&self.titles))?;
        let total = widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
        writeln!(f, "{}", "─".repeat(total))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", line(row)))
    }
}
