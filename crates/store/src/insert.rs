//! New rows in the way that each database takes them fastest: COPY in Postgres, many rows of values in SQLite.

use sqlx::{AssertSqlSafe, Sqlite, query::Query, sqlite::SqliteArguments};
use uuid::Uuid;

use crate::sql::{Column, Rows};

/// Rows of one statement in SQLite. Its text is prepared once for every power of two up to this.
const VALUES_ROWS_MAX: usize = 128;

/// What Postgres' binary format begins with: a signature, no flags, no extension.
const COPY_HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
const COPY_END: [u8; 2] = (-1_i16).to_be_bytes();
/// A length that stands for NULL.
const COPY_NULL: [u8; 4] = (-1_i32).to_be_bytes();

impl Rows {
    /// The statement that takes [`Rows::copy_data`].
    pub(crate) fn copy_statement(&self, table: &str) -> String {
        let names = self.names();
        format!("COPY {table} ({names}) FROM STDIN WITH (FORMAT binary)")
    }

    /// The rows in Postgres' binary format.
    pub(crate) fn copy_data(&self) -> Vec<u8> {
        let columns = u16::try_from(self.0.len()).unwrap_or(u16::MAX);
        let mut out = Vec::with_capacity(COPY_HEAD.len() + self.len() * self.0.len() * 16);
        out.extend_from_slice(COPY_HEAD);
        for row in 0..self.len() {
            out.extend_from_slice(&columns.to_be_bytes());
            for (_, column) in &self.0 {
                column.copy(row, &mut out);
            }
        }
        out.extend_from_slice(&COPY_END);
        out
    }

    /// Statements for SQLite, each of a number of rows that comes again and again.
    pub(crate) fn value_statements<'a>(
        &'a self,
        table: &'a str,
    ) -> impl Iterator<Item = Query<'a, Sqlite, SqliteArguments>> + Send {
        let mut from = 0;
        std::iter::from_fn(move || {
            let left = self.len() - from;
            let count = VALUES_ROWS_MAX.min(1 << left.checked_ilog2()?);
            let mut query = sqlx::query(AssertSqlSafe(self.values_text(table, count)));
            for row in from..from + count {
                for (_, column) in &self.0 {
                    query = column.bind(row, query);
                }
            }
            from += count;
            Some(query)
        })
    }

    fn values_text(&self, table: &str, count: usize) -> String {
        let names = self.names();
        let row = format!("({})", vec!["?"; self.0.len()].join(","));
        let rows = vec![row; count].join(",");
        format!("INSERT INTO {table} ({names}) VALUES {rows}")
    }
}

impl Column {
    fn copy(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Uuid(v) => field(v.get(row).copied().flatten().map(Uuid::into_bytes), out),
            Self::Int(v) => field(v.get(row).copied().flatten().map(i64::to_be_bytes), out),
            Self::Bool(v) => field(v.get(row).copied().flatten().map(|b| [u8::from(b)]), out),
            Self::Text(v) => field(v.get(row).and_then(Option::as_deref), out),
            Self::Bytes(v) => field(v.get(row).and_then(Option::as_deref), out),
        }
    }

    fn bind<'q>(
        &'q self,
        row: usize,
        query: Query<'q, Sqlite, SqliteArguments>,
    ) -> Query<'q, Sqlite, SqliteArguments> {
        match self {
            Self::Uuid(v) => query.bind(v.get(row).copied().flatten()),
            Self::Int(v) => query.bind(v.get(row).copied().flatten()),
            Self::Bool(v) => query.bind(v.get(row).copied().flatten()),
            Self::Text(v) => query.bind(v.get(row).and_then(Option::as_deref)),
            Self::Bytes(v) => query.bind(v.get(row).and_then(Option::as_deref)),
        }
    }
}

fn field(value: Option<impl AsRef<[u8]>>, out: &mut Vec<u8>) {
    let Some(value) = value else {
        out.extend_from_slice(&COPY_NULL);
        return;
    };
    let value = value.as_ref();
    // A value of two gibibytes would have been refused long before.
    let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_format_of_postgres() {
        let rows = Rows::new()
            .opt_int("n", [Some(258), None])
            .text("t", ["ab", ""])
            .bool("b", [true, false]);
        assert_eq!(
            rows.copy_statement("x"),
            "COPY x (n, t, b) FROM STDIN WITH (FORMAT binary)"
        );
        let mut expected = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        expected.extend([0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]);
        expected.extend([0, 0, 0, 2, b'a', b'b', 0, 0, 0, 1, 1]);
        expected.extend([0, 3, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        expected.extend([255, 255]);
        assert_eq!(rows.copy_data(), expected);
    }

    #[test]
    fn values_come_in_powers_of_two() {
        let ids = (0..300).map(Uuid::from_u128);
        let rows = Rows::ids(ids);
        // 300 = 128 + 128 + 32 + 8 + 4
        assert_eq!(rows.value_statements("x").count(), 5);
        assert_eq!(
            rows.values_text("x", 2),
            "INSERT INTO x (id) VALUES (?),(?)"
        );
        assert_eq!(Rows::new().value_statements("x").count(), 0);
    }
}
