//! What commands print: tables and records for people, JSON for programs, errors line by line.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use serde_json::Value;

/// Prints a line.
pub(super) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", harmless(text))
}

/// Prints JSON, indented.
pub(super) fn json(value: &Value) -> io::Result<()> {
    // serde_json writes control characters as escapes.
    writeln!(io::stdout().lock(), "{value:#}")
}

/// Prints an error, each of its lines with the program's name.
pub(super) fn complain(error: &dyn Display) {
    let mut out = io::stderr().lock();
    for line in error.to_string().lines() {
        // Where nobody listens there is nobody to tell.
        let _ = writeln!(out, "tollway: {}", harmless(line));
    }
}

/// Prints names and values, one pair a line.
pub(super) fn record(pairs: &[(&str, String)]) -> io::Result<()> {
    let rows: Vec<Vec<String>> = pairs
        .iter()
        .map(|(name, value)| vec![(*name).to_owned(), value.clone()])
        .collect();
    io::stdout().lock().write_all(aligned(&rows).as_bytes())
}

/// Prints a list as a table: a heading and the value that `cells` finds in each row.
pub(super) fn table(
    headings: &[&str],
    list: &Value,
    cells: impl Fn(&Value) -> Vec<String>,
) -> io::Result<()> {
    let mut rows = vec![headings.iter().map(|h| (*h).to_owned()).collect()];
    rows.extend(list["data"].as_array().into_iter().flatten().map(cells));
    let mut out = io::stdout().lock();
    out.write_all(aligned(&rows).as_bytes())?;
    if let Some(cursor) = list["next_cursor"].as_str() {
        writeln!(out, "\nmore: --cursor {}", harmless(cursor))?;
    }
    Ok(())
}

/// A value of a row by its path, `balance.available`; a dash where there is none.
pub(super) fn cell(row: &Value, path: &str) -> String {
    let value = path.split('.').fold(row, |value, name| &value[name]);
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, text) in row.iter().enumerate() {
            match widths.get_mut(at) {
                Some(most) => *most = width(text).max(*most),
                None => widths.push(width(text)),
            }
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (text, most) in row.iter().zip(&widths) {
            line.push_str(&harmless(text));
            line.extend(std::iter::repeat_n(' ', most - width(text) + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Text that cannot steer a terminal: control characters are shown as `?`.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_terminals_are_safe() {
        let rows = [["a", "bb", ""], ["ccc", "d\u{1b}[31m", "e"]]
            .map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "a    bb\nccc  d?[31m  e\n");
    }

    #[test]
    fn cells() {
        let row = json!({"a": {"b": "x"}, "n": 3, "none": null});
        for (path, text) in [("a.b", "x"), ("n", "3"), ("none", "-"), ("a.c.d", "-")] {
            assert_eq!(cell(&row, path), text);
        }
    }
}
