//! Tables in Markdown.

use std::fmt::Write as _;

use crate::meter::{Figure, Line, MODES, Mode};

/// A table whose first column is flush left and whose others are flush right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column heads.
    #[must_use]
    pub fn new<const N: usize>(heads: [&str; N]) -> Self {
        Self {
            rows: vec![heads.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, its columns aligned.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|c| c.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, width) in widths.iter().copied().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                let written = if column == 0 {
                    write!(text, "| {cell:<width$} ")
                } else {
                    write!(text, "| {cell:>width$} ")
                };
                written.expect("a String takes any text");
            }
            text.push_str("|\n");
            if index == 0 {
                for (column, width) in widths.iter().copied().enumerate() {
                    let rule = "-".repeat(width + 1);
                    text.push_str(&if column == 0 {
                        format!("|{rule}-")
                    } else {
                        format!("|{rule}:")
                    });
                }
                text.push_str("|\n");
            }
        }
        text
    }
}

/// All figures of [`crate::meter::measure`]: first one row a layer with what it adds to its leaf, then each mode in full.
#[must_use]
pub fn layers(lines: &[Line]) -> String {
    let mut text = String::from(
        "## What each layer adds to its leaf\n\nNanoseconds / allocations for each call; a leaf's row shows its own.\n\n",
    );
    let mut table = Table::new([
        "layer",
        "ready, 1 task",
        "ready, 64 tasks",
        "pending once, 1 task",
        "pending once, 64 tasks",
        "chunk",
        "beside (ready, 1 task)",
    ]);
    for line in lines {
        let added = |figure: &Option<Figure>| {
            figure.map_or_else(
                || "–".to_owned(),
                |figure| format!("{} / {}", ns(figure.above), count(figure.allocations_above)),
            )
        };
        let comparison = compared(line, lines, Mode::OneReady)
            .map(|(peer, cell)| format!("{cell} {peer}"))
            .unwrap_or_default();
        table.row(
            std::iter::once(line.name.clone())
                .chain(line.figures.iter().map(added))
                .chain([comparison]),
        );
    }
    text.push_str(&table.render());
    for mode in MODES {
        let _ = write!(text, "\n## {}\n\n", title(mode));
        let mut table = Table::new([
            "layer",
            "ns, median",
            "ns, least",
            "above leaf",
            "allocations",
            "above leaf",
            "beside its peer",
        ]);
        for line in lines {
            let Some(figure) = line.figures[mode as usize] else {
                continue;
            };
            let comparison = compared(line, lines, mode)
                .map(|(peer, cell)| format!("{cell} {peer}"))
                .unwrap_or_default();
            table.row([
                line.name.clone(),
                ns(figure.ns),
                ns(figure.least),
                ns(figure.above),
                count(figure.allocations),
                count(figure.allocations_above),
                comparison,
            ]);
        }
        text.push_str(&table.render());
    }
    text
}

const fn title(mode: Mode) -> &'static str {
    match mode {
        Mode::OneReady => "Unary, leaf ready at once, one task",
        Mode::ManyReady => {
            "Unary, leaf ready at once, 64 tasks on two threads (processor time of both)"
        }
        Mode::OnePending => "Unary, leaf pending once, one task",
        Mode::ManyPending => {
            "Unary, leaf pending once, 64 tasks on two threads (processor time of both)"
        }
        Mode::Chunk => "Chunk of a stream",
    }
}

/// The peer's name, and how much more (or less) than it this line adds: as a ratio and in nanoseconds.
fn compared(line: &Line, lines: &[Line], mode: Mode) -> Option<(&'static str, String)> {
    let peer = line.peer?;
    let mine = line.figures[mode as usize]?.above;
    let other = lines.iter().find(|other| other.name == peer)?.figures[mode as usize]?.above;
    Some((
        peer,
        format!("{:.2} × ({:+.0} ns)", mine / other, mine - other),
    ))
}

fn ns(value: f64) -> String {
    format!("{value:.1}")
}

/// Allocations, where what rounds to zero shows no sign.
fn count(value: f64) -> String {
    format!("{:.2}", if value.abs() < 0.005 { 0.0 } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new(["layer", "ns"]);
        table.row(["timeout".to_owned(), "9.5".to_owned()]);
        assert_eq!(
            table.render(),
            "| layer   |  ns |\n|---------|----:|\n| timeout | 9.5 |\n"
        );
    }

    #[test]
    fn a_peer_is_compared_by_what_both_add() {
        let figure = |above| {
            Some(Figure {
                ns: 100.0,
                least: 90.0,
                above,
                allocations: 0.0,
                allocations_above: -0.001,
            })
        };
        let line = |name: &str, peer, above| Line {
            name: name.to_owned(),
            leaf: Some("leaf"),
            peer,
            figures: [figure(above), None, None, None, None],
        };
        let lines = [
            line("theirs", None, 40.0),
            line("ours", Some("theirs"), 60.0),
        ];
        let text = layers(&lines);
        assert!(text.contains("1.50 × (+20 ns) theirs"), "{text}");
        assert!(text.contains("60.0 / 0.00"), "{text}");
    }
}
