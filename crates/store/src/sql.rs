//! One statement for both databases: the text once, with marks for what differs.
//!
//! Marks in a statement: `?` is the next argument; `{rows}` is a set of rows, as a table named
//! `s`; `{now}` is the database's clock in microseconds; `{lock}` locks the rows read; `{free}`
//! locks those that nobody else has locked. SQLite has one writer and needs no locks.

use sqlx::{
    AssertSqlSafe, Postgres, Sqlite,
    postgres::PgArguments,
    query::{Query, QueryAs},
    sqlite::SqliteArguments,
};
use uuid::Uuid;

/// A statement and its arguments.
#[derive(Debug)]
pub(crate) struct Sql {
    text: String,
    args: Vec<Arg>,
    /// The database's clock, where a simulation decides it: bound in the place of `{now}`.
    now: Option<i64>,
}

#[derive(Debug)]
enum Arg {
    Uuid(Option<Uuid>),
    Int(Option<i64>),
    Text(Option<String>),
    Bool(Option<bool>),
    Bytes(Option<Vec<u8>>),
    Rows(Rows),
}

/// A set of rows that travels as one argument: arrays in Postgres, JSON in SQLite.
#[derive(Debug, Default)]
pub(crate) struct Rows(pub(crate) Vec<(&'static str, Column)>);

/// The values of one column.
#[derive(Debug)]
pub(crate) enum Column {
    Uuid(Vec<Option<Uuid>>),
    Int(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Bool(Vec<Option<bool>>),
    Bytes(Vec<Option<Vec<u8>>>),
}

/// Binds all arguments in order; a set of rows as the caller says.
macro_rules! bind {
    ($args:expr => $query:expr, |$q:ident, $rows:ident| $set:expr) => {{
        let mut query = $query;
        for arg in $args {
            query = match arg {
                Arg::Uuid(value) => query.bind(value),
                Arg::Int(value) => query.bind(value),
                Arg::Text(value) => query.bind(value),
                Arg::Bool(value) => query.bind(value),
                Arg::Bytes(value) => query.bind(value),
                Arg::Rows($rows) => {
                    let $q = query;
                    $set
                }
            };
        }
        query
    }};
}

/// Binds a set of rows as one array a column.
macro_rules! bind_columns {
    ($query:expr, $rows:expr) => {{
        let mut query = $query;
        for (_, column) in $rows.0 {
            query = match column {
                Column::Uuid(values) => query.bind(values),
                Column::Int(values) => query.bind(values),
                Column::Text(values) => query.bind(values),
                Column::Bool(values) => query.bind(values),
                Column::Bytes(values) => query.bind(values),
            };
        }
        query
    }};
}

/// Which database a statement is rendered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    Sqlite,
    Postgres,
}

/// The statement `text` without arguments yet.
pub(crate) fn sql(text: impl Into<String>) -> Sql {
    Sql {
        text: text.into(),
        args: Vec::new(),
        now: None,
    }
}

impl Sql {
    pub(crate) fn uuid(self, value: Uuid) -> Self {
        self.arg(Arg::Uuid(Some(value)))
    }

    pub(crate) fn opt_uuid(self, value: Option<Uuid>) -> Self {
        self.arg(Arg::Uuid(value))
    }

    pub(crate) fn int(self, value: i64) -> Self {
        self.arg(Arg::Int(Some(value)))
    }

    pub(crate) fn opt_int(self, value: Option<i64>) -> Self {
        self.arg(Arg::Int(value))
    }

    pub(crate) fn text(self, value: &str) -> Self {
        self.arg(Arg::Text(Some(value.to_owned())))
    }

    pub(crate) fn opt_text(self, value: Option<&str>) -> Self {
        self.arg(Arg::Text(value.map(str::to_owned)))
    }

    pub(crate) fn bool(self, value: bool) -> Self {
        self.arg(Arg::Bool(Some(value)))
    }

    pub(crate) fn bytes(self, value: &[u8]) -> Self {
        self.arg(Arg::Bytes(Some(value.to_vec())))
    }

    pub(crate) fn rows(self, rows: Rows) -> Self {
        self.arg(Arg::Rows(rows))
    }

    /// One statement of Postgres' that does what all of these do, seeing the tables as they are
    /// before it. `None` for none.
    pub(crate) fn together(statements: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut statements = statements.into_iter();
        let mut last = statements.next()?;
        let mut before = Vec::new();
        let mut args = Vec::new();
        for next in statements {
            before.push(format!("w{} AS ({})", before.len(), last.text));
            args.append(&mut last.args);
            last = next;
        }
        if before.is_empty() {
            return Some(last);
        }
        args.append(&mut last.args);
        Some(Self {
            text: format!("WITH {} {}", before.join(", "), last.text),
            args,
            now: None,
        })
    }

    /// Fixes what `{now}` is.
    #[cfg(feature = "simulation")]
    pub(crate) fn at(mut self, now_us: i64) -> Self {
        self.now = self.text.contains("{now}").then_some(now_us);
        self
    }

    /// Puts `text` in the place of a mark of the caller's own.
    pub(crate) fn with(mut self, mark: &str, text: &str) -> Self {
        self.text = self.text.replace(mark, text);
        self
    }

    fn arg(mut self, arg: Arg) -> Self {
        self.args.push(arg);
        self
    }

    /// The text as `flavor` understands it.
    fn render(&self, flavor: Flavor) -> String {
        let (now, lock, free) = match flavor {
            Flavor::Sqlite => ("CAST(unixepoch('subsec') * 1000000 AS INTEGER)", "", ""),
            Flavor::Postgres => (
                "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
                "FOR NO KEY UPDATE",
                "FOR NO KEY UPDATE SKIP LOCKED",
            ),
        };
        let last = format!("${}", self.args.len() + 1);
        let now = if self.now.is_some() { &last } else { now };
        let marked = self
            .text
            .replace("{now}", now)
            .replace("{lock}", lock)
            .replace("{free}", free)
            .replace("{rows}", "?");
        let mut out = String::with_capacity(marked.len() + 64);
        let mut next = 1;
        let mut pieces = marked.split('?');
        out.push_str(pieces.next().unwrap_or_default());
        for (piece, arg) in pieces.zip(&self.args) {
            match arg {
                Arg::Rows(rows) => rows.render(flavor, &mut next, &mut out),
                Arg::Uuid(_) | Arg::Int(_) | Arg::Text(_) | Arg::Bool(_) | Arg::Bytes(_) => {
                    out.push_str(&format!("${next}"));
                    next += 1;
                }
            }
            out.push_str(piece);
        }
        out
    }

    pub(crate) fn sqlite_as<T>(self) -> QueryAs<'static, Sqlite, T, SqliteArguments>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::sqlite::SqliteRow>,
    {
        let text = AssertSqlSafe(self.render(Flavor::Sqlite));
        let query = bind!(self.args => sqlx::query_as(text), |query, rows| query.bind(rows.json()));
        match self.now {
            Some(now) => query.bind(now),
            None => query,
        }
    }

    pub(crate) fn sqlite(self) -> Query<'static, Sqlite, SqliteArguments> {
        let text = AssertSqlSafe(self.render(Flavor::Sqlite));
        let query = bind!(self.args => sqlx::query(text), |query, rows| query.bind(rows.json()));
        match self.now {
            Some(now) => query.bind(now),
            None => query,
        }
    }

    pub(crate) fn postgres_as<T>(self) -> QueryAs<'static, Postgres, T, PgArguments>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow>,
    {
        let text = AssertSqlSafe(self.render(Flavor::Postgres));
        bind!(self.args => sqlx::query_as(text), |query, rows| bind_columns!(query, rows))
    }

    pub(crate) fn postgres(self) -> Query<'static, Postgres, PgArguments> {
        let text = AssertSqlSafe(self.render(Flavor::Postgres));
        bind!(self.args => sqlx::query(text), |query, rows| bind_columns!(query, rows))
    }
}

impl Rows {
    /// A set of no columns yet; all columns must get equally many values.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A set of ids in a column `id`.
    pub(crate) fn ids(ids: impl IntoIterator<Item = Uuid>) -> Self {
        Self::new().uuid("id", ids)
    }

    pub(crate) fn uuid(self, name: &'static str, of: impl IntoIterator<Item = Uuid>) -> Self {
        self.opt_uuid(name, of.into_iter().map(Some))
    }

    pub(crate) fn opt_uuid(
        self,
        name: &'static str,
        of: impl IntoIterator<Item = Option<Uuid>>,
    ) -> Self {
        self.column(name, Column::Uuid(of.into_iter().collect()))
    }

    pub(crate) fn int(self, name: &'static str, of: impl IntoIterator<Item = i64>) -> Self {
        self.opt_int(name, of.into_iter().map(Some))
    }

    pub(crate) fn opt_int(
        self,
        name: &'static str,
        of: impl IntoIterator<Item = Option<i64>>,
    ) -> Self {
        self.column(name, Column::Int(of.into_iter().collect()))
    }

    pub(crate) fn text<'a>(
        self,
        name: &'static str,
        of: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        self.opt_text(name, of.into_iter().map(Some))
    }

    pub(crate) fn opt_text<'a>(
        self,
        name: &'static str,
        of: impl IntoIterator<Item = Option<&'a str>>,
    ) -> Self {
        let values = of.into_iter().map(|v| v.map(str::to_owned)).collect();
        self.column(name, Column::Text(values))
    }

    pub(crate) fn bool(self, name: &'static str, of: impl IntoIterator<Item = bool>) -> Self {
        self.column(name, Column::Bool(of.into_iter().map(Some).collect()))
    }

    pub(crate) fn opt_bytes(
        self,
        name: &'static str,
        of: impl IntoIterator<Item = Option<Vec<u8>>>,
    ) -> Self {
        self.column(name, Column::Bytes(of.into_iter().collect()))
    }

    fn column(mut self, name: &'static str, column: Column) -> Self {
        self.0.push((name, column));
        self
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.0.first().map_or(0, |(_, column)| column.len())
    }

    /// The column names, for `INSERT INTO t (names) SELECT names FROM s`.
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    }

    fn render(&self, flavor: Flavor, next: &mut u32, out: &mut String) {
        match flavor {
            Flavor::Sqlite => {
                out.push_str("(SELECT ");
                for (index, (name, column)) in self.0.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    let value = match column {
                        Column::Uuid(_) | Column::Bytes(_) => {
                            format!("unhex(json_extract(value, '$[{index}]'))")
                        }
                        Column::Int(_) | Column::Text(_) | Column::Bool(_) => {
                            format!("json_extract(value, '$[{index}]')")
                        }
                    };
                    out.push_str(&format!("{comma}{value} AS {name}"));
                }
                out.push_str(&format!(" FROM json_each(${next})) AS s"));
                *next += 1;
            }
            Flavor::Postgres => {
                out.push_str("unnest(");
                for (index, (_, column)) in self.0.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    let kind = match column {
                        Column::Uuid(_) => "uuid",
                        Column::Int(_) => "bigint",
                        Column::Text(_) => "text",
                        Column::Bool(_) => "boolean",
                        Column::Bytes(_) => "bytea",
                    };
                    out.push_str(&format!("{comma}${next}::{kind}[]"));
                    *next += 1;
                }
                out.push_str(&format!(") AS s ({})", self.names()));
            }
        }
    }

    /// The set as a JSON array of arrays; bytes are hexadecimal.
    fn json(&self) -> String {
        let rows = self.len();
        let mut out = String::with_capacity(rows * self.0.len() * 24 + 2);
        out.push('[');
        for row in 0..rows {
            out.push_str(if row > 0 { ",[" } else { "[" });
            for (index, (_, column)) in self.0.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                column.write_json(row, &mut out);
            }
            out.push(']');
        }
        out.push(']');
        out
    }
}

impl Column {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Uuid(v) => v.len(),
            Self::Int(v) => v.len(),
            Self::Text(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Bytes(v) => v.len(),
        }
    }

    fn write_json(&self, row: usize, out: &mut String) {
        let written = match self {
            Self::Uuid(v) => v
                .get(row)
                .copied()
                .flatten()
                .map(|id| format!("\"{}\"", id.simple())),
            Self::Int(v) => v.get(row).copied().flatten().map(|n| n.to_string()),
            Self::Bool(v) => v.get(row).copied().flatten().map(|b| b.to_string()),
            Self::Text(v) => v
                .get(row)
                .and_then(Option::as_deref)
                .map(|text| serde_json::Value::from(text).to_string()),
            Self::Bytes(v) => v
                .get(row)
                .and_then(Option::as_deref)
                .map(|bytes| format!("\"{}\"", hex(bytes))),
        };
        out.push_str(written.as_deref().unwrap_or("null"));
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_both_databases() {
        let rows = || {
            Rows::new()
                .uuid("id", [Uuid::from_u128(1)])
                .opt_int("n", [None])
        };
        let statement = || {
            sql("UPDATE t SET n = s.n, at = {now} FROM {rows} WHERE t.id = s.id AND t.x = ?")
                .rows(rows())
                .int(7)
        };
        assert_eq!(
            statement().render(Flavor::Postgres),
            "UPDATE t SET n = s.n, at = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint \
             FROM unnest($1::uuid[], $2::bigint[]) AS s (id, n) WHERE t.id = s.id AND t.x = $3"
        );
        assert_eq!(
            statement().render(Flavor::Sqlite),
            "UPDATE t SET n = s.n, at = CAST(unixepoch('subsec') * 1000000 AS INTEGER) \
             FROM (SELECT unhex(json_extract(value, '$[0]')) AS id, json_extract(value, '$[1]') AS n \
             FROM json_each($1)) AS s WHERE t.id = s.id AND t.x = $2"
        );
        assert_eq!(
            rows().json(),
            "[[\"00000000000000000000000000000001\",null]]"
        );
    }

    #[test]
    fn several_statements_are_one() {
        let one = || sql("UPDATE t SET n = ?").int(1);
        let two = || sql("UPDATE u SET n = s.n FROM {rows} WHERE u.m = ?");
        let two = || two().rows(Rows::new().int("n", [2])).int(3);
        let text = |all: Vec<Sql>| Sql::together(all).map(|sql| sql.render(Flavor::Postgres));
        assert_eq!(text(vec![]), None);
        assert_eq!(text(vec![one()]).as_deref(), Some("UPDATE t SET n = $1"));
        assert_eq!(
            text(vec![one(), two(), one()]).as_deref(),
            Some(
                "WITH w0 AS (UPDATE t SET n = $1), \
                 w1 AS (UPDATE u SET n = s.n FROM unnest($2::bigint[]) AS s (n) WHERE u.m = $3) \
                 UPDATE t SET n = $4"
            )
        );
    }

    #[test]
    fn text_and_bytes_are_quoted() {
        let rows = Rows::new()
            .text("t", ["a\"\\\n"])
            .opt_bytes("b", [Some(vec![0, 255])])
            .bool("y", [true])
            .int("n", [i64::MIN]);
        assert_eq!(
            rows.json(),
            "[[\"a\\\"\\\\\\n\",\"00ff\",true,-9223372036854775808]]"
        );
    }
}
