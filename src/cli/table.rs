//! Columns of text. Knows widths, nothing else.

/// Rows under a head; as wide as their longest cell, two spaces apart.
#[derive(Clone, Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    elastic: usize,
}

/// The narrowest an elastic column becomes.
const NARROWEST: usize = 12;

impl Table {
    /// A table with its head; the column `elastic` is cut, with `…`, where there is no room.
    pub(super) fn new<const N: usize>(head: [&str; N], elastic: usize) -> Self {
        Self {
            rows: vec![head.map(str::to_owned).into()],
            elastic,
        }
    }

    /// Adds a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.row_of(cells);
    }

    /// Adds a row that may be longer than the head.
    pub(super) fn row_of(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The lines, none longer than `width` if the elastic column can help it.
    pub(super) fn render(&self, width: Option<usize>) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell: &String| length(cell)).max()
        };
        let mut widths: Vec<usize> = (0..columns)
            .map(|column| widest(column).unwrap_or(0))
            .collect();
        let whole = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
        if let (Some(width), Some(elastic)) = (width, widths.get_mut(self.elastic)) {
            let excess = whole.saturating_sub(width);
            *elastic = elastic
                .saturating_sub(excess)
                .max((*elastic).min(NARROWEST));
        }
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| fit(cell, *width))
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// `parts` joined by `between`, folded before the part that would pass `width`; folded lines begin with two spaces.
pub(super) fn fold(parts: &[String], between: &str, width: Option<usize>) -> String {
    let mut text = String::new();
    let mut used = 0;
    for part in parts {
        let more = length(between) + length(part);
        if used == 0 {
            used = length(part);
        } else if width.is_some_and(|width| used + more > width) {
            text.push_str("\n  ");
            used = 2 + length(part);
        } else {
            text.push_str(between);
            used += more;
        }
        text.push_str(part);
    }
    text.push('\n');
    text
}

fn fit(cell: &str, width: usize) -> String {
    if length(cell) <= width {
        format!("{cell:<width$}")
    } else {
        cell.chars()
            .take(width.saturating_sub(1))
            .chain(['…'])
            .collect()
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["PEER", "PATH", "LAST"], 1);
        table.row([
            "anna".into(),
            "direct [2001:db8:1:2:3:4:5:6]:61234".into(),
            "now".into(),
        ]);
        table.row(["bo".into(), "–".into(), "3 days".into()]);
        table
    }

    #[test]
    fn columns_stand_under_their_heads() {
        let text = table().render(None);
        let lines: Vec<&str> = text.lines().collect();
        let at = |line: &str, word: &str| line.split(word).next().unwrap().chars().count();
        assert_eq!(at(lines[0], "LAST"), at(lines[2], "3 days"));
        assert!(lines.iter().all(|line| !line.ends_with(' ')));
    }

    #[test]
    fn the_elastic_column_gives_way_and_no_other() {
        let text = table().render(Some(40));
        assert!(
            text.lines().all(|line| line.chars().count() <= 40),
            "{text}"
        );
        assert!(text.contains("direct [2001:db8:1:2:3:4:…  now"), "{text}");
        assert!(table().render(Some(5)).contains("direct [200…"));
    }

    #[test]
    fn a_line_is_folded_between_its_parts() {
        let parts = [
            "home".to_owned(),
            "bo (member)".to_owned(),
            "100.71.3.4".to_owned(),
        ];
        assert_eq!(
            fold(&parts, " · ", None),
            "home · bo (member) · 100.71.3.4\n"
        );
        assert_eq!(
            fold(&parts, " · ", Some(20)),
            "home · bo (member)\n  100.71.3.4\n"
        );
    }
}
