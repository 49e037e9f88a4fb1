//! Reads the one kind of Python that a generated data file holds: literals and constructor calls.

use std::collections::BTreeMap;

/// How deep values may be nested.
const DEPTH_MAX: usize = 64;

/// A literal or a constructor call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// `None`, `True`, `False` or another bare name.
    Name(String),
    /// A number, in its own digits.
    Number(String),
    /// A string.
    Text(String),
    /// A list or tuple.
    List(Vec<Value>),
    /// A dictionary; nothing here needs its members.
    Dictionary,
    /// `Name(1, key=2)`.
    Call(Call),
}

/// A constructor call.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Call {
    /// What is called, dots included.
    pub name: String,
    /// Arguments by place.
    pub arguments: Vec<Value>,
    /// Arguments by name.
    pub named: BTreeMap<String, Value>,
}

impl Value {
    /// The string, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Name(_) | Self::Number(_) | Self::List(_) | Self::Dictionary | Self::Call(_) => {
                None
            }
        }
    }

    /// The items, if it is a list.
    pub(crate) fn items(&self) -> Option<&[Value]> {
        match self {
            Self::List(items) => Some(items),
            Self::Name(_) | Self::Number(_) | Self::Text(_) | Self::Dictionary | Self::Call(_) => {
                None
            }
        }
    }

    /// The call, if it is one of `name`.
    pub(crate) fn call(&self, name: &str) -> Option<&Call> {
        match self {
            Self::Call(call) if call.name == name => Some(call),
            Self::Call(_)
            | Self::Name(_)
            | Self::Number(_)
            | Self::Text(_)
            | Self::List(_)
            | Self::Dictionary => None,
        }
    }

    /// The whole number, if it is one.
    pub(crate) fn whole(&self) -> Option<u64> {
        match self {
            Self::Number(digits) => digits.replace('_', "").parse().ok(),
            Self::Name(_) | Self::Text(_) | Self::List(_) | Self::Dictionary | Self::Call(_) => {
                None
            }
        }
    }

    /// True for `True`.
    pub(crate) fn is_true(&self) -> bool {
        matches!(self, Self::Name(name) if name == "True")
    }
}

/// Reads the value at the start of `text`. The error names the line, from 1.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0 };
    reader.value(0).map_err(|why| {
        let before = text.get(..reader.at).unwrap_or_default();
        format!("line {}: {why}", before.matches('\n').count() + 1)
    })
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next character that is no space and no comment, without taking it.
    fn peek(&mut self) -> Option<char> {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return trimmed.chars().next();
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// Takes `wanted` if it comes next.
    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err("nested too deep".to_owned());
        }
        match self.peek() {
            Some('[') => self.sequence('[', ']', depth).map(Value::List),
            Some('(') => self.sequence('(', ')', depth).map(Value::List),
            Some('{') => self.dictionary(depth),
            Some('\'' | '"') => self.string().map(Value::Text),
            Some(start) if start.is_ascii_digit() || start == '-' => Ok(Value::Number(
                self.word(|c| c.is_ascii_alphanumeric() || "-+._".contains(c)),
            )),
            Some(start) if start.is_alphabetic() || start == '_' => self.name(depth),
            Some(other) => Err(format!("{other:?} starts no value")),
            None => Err("the text ends where a value should be".to_owned()),
        }
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let rest = self.rest();
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default().to_owned()
    }

    fn sequence(&mut self, open: char, close: char, depth: usize) -> Result<Vec<Value>, String> {
        self.take(open);
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(self.value(depth + 1)?);
            self.separator(close)?;
        }
        Ok(items)
    }

    fn separator(&mut self, close: char) -> Result<(), String> {
        if self.take(',') || self.peek() == Some(close) {
            return Ok(());
        }
        Err(format!("neither a comma nor {close:?} after a value"))
    }

    fn dictionary(&mut self, depth: usize) -> Result<Value, String> {
        self.take('{');
        while !self.take('}') {
            self.value(depth + 1)?;
            if !self.take(':') {
                return Err("a dictionary's key without a colon".to_owned());
            }
            self.value(depth + 1)?;
            self.separator('}')?;
        }
        Ok(Value::Dictionary)
    }

    fn name(&mut self, depth: usize) -> Result<Value, String> {
        let name = self.word(|c| c.is_alphanumeric() || c == '_' || c == '.');
        if self.peek() != Some('(') {
            return Ok(Value::Name(name));
        }
        self.take('(');
        let mut call = Call {
            name,
            ..Call::default()
        };
        while !self.take(')') {
            let value = self.value(depth + 1)?;
            match value {
                Value::Name(key) if self.take('=') => {
                    let value = self.value(depth + 1)?;
                    call.named.insert(key, value);
                }
                value @ (Value::Name(_)
                | Value::Number(_)
                | Value::Text(_)
                | Value::List(_)
                | Value::Dictionary
                | Value::Call(_)) => call.arguments.push(value),
            }
            self.separator(')')?;
        }
        Ok(Value::Call(call))
    }

    /// One string, or several side by side, which Python joins.
    fn string(&mut self) -> Result<String, String> {
        let mut text = String::new();
        while let Some(quote @ ('\'' | '"')) = self.peek() {
            self.at += 1;
            let mut characters = self.rest().char_indices();
            loop {
                match characters.next() {
                    None | Some((_, '\n')) => return Err("a string without its end".to_owned()),
                    Some((offset, c)) if c == quote => {
                        self.at += offset + 1;
                        break;
                    }
                    Some((_, '\\')) => match characters.next() {
                        Some((_, 'n')) => text.push('\n'),
                        Some((_, c @ ('\\' | '\'' | '"'))) => text.push(c),
                        // Only descriptions hold others; no id, date or price does.
                        Some((_, c)) => text.extend(['\\', c]),
                        None => return Err("a string without its end".to_owned()),
                    },
                    Some((_, c)) => text.push(c),
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_generated_file_holds() {
        let value = parse(
            "[  # a comment\n  Model(\n id='a\\'b', window=1_000, old=True, day=datetime.date(2026, 9, 1),\n \
             price=Decimal('1.50'), when={'a': ['b']}, pair=(1, \"two\"), joined='x' \"y\",\n ),\n] trailing",
        )
        .unwrap();
        let model = value.items().unwrap()[0].call("Model").unwrap();
        assert_eq!(model.named["id"].text(), Some("a'b"));
        assert_eq!(model.named["window"].whole(), Some(1_000));
        assert!(model.named["old"].is_true());
        assert_eq!(
            model.named["price"].call("Decimal").unwrap().arguments[0].text(),
            Some("1.50")
        );
        assert_eq!(
            model.named["day"]
                .call("datetime.date")
                .unwrap()
                .arguments
                .len(),
            3
        );
        assert_eq!(model.named["when"], Value::Dictionary);
        assert_eq!(model.named["pair"].items().unwrap().len(), 2);
        assert_eq!(model.named["joined"].text(), Some("xy"));
    }

    #[test]
    fn says_on_which_line_it_stumbled() {
        assert!(parse("[\n 1,\n ?]").unwrap_err().starts_with("line 3"));
        for broken in [
            "", "[1", "A(b=", "'a", "'a\n'", "{1}", "[1 2]", "A(b c)", "'\\",
        ] {
            assert!(parse(broken).is_err(), "{broken:?}");
        }
        assert!(
            parse(&"[".repeat(100_000))
                .unwrap_err()
                .contains("too deep")
        );
    }
}
