//! Pages of a list: newest first, and a cursor that names where the next page starts.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::StoreError;

/// The most rows of one page.
pub const PAGE_ROWS_MAX: u16 = 1000;

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    limit: u16,
    cursor: Option<Cursor>,
}

impl Page {
    /// A page of `limit` rows, at least 1 and at most [`PAGE_ROWS_MAX`] (pinned), after `cursor`.
    #[must_use]
    pub fn new(limit: u16, cursor: Option<Cursor>) -> Self {
        Self {
            limit: limit.clamp(1, PAGE_ROWS_MAX),
            cursor,
        }
    }

    /// One row more than the page has, to know whether there is a next one.
    pub(crate) fn fetch_rows(self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Rows with a smaller id belong to the page.
    pub(crate) fn below(self) -> Uuid {
        self.cursor.map_or(Uuid::max(), |cursor| cursor.0)
    }

    /// Cuts `rows` to the page; `id` tells where a row sorts.
    pub(crate) fn cut<T>(self, mut rows: Vec<T>, id: impl Fn(&T) -> Uuid) -> Listed<T> {
        let limit = usize::from(self.limit);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| Cursor(id(row)));
        Listed { data: rows, next }
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::new(100, None)
    }
}

/// Where a page ended; opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub(crate) Uuid);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.simple())
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| StoreError::Invalid {
                field: "cursor",
                problem: "not a cursor; pass next_cursor of the page before",
            })
    }
}

/// One page of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The rows, newest first.
    pub data: Vec<T>,
    /// Where the next page starts; `None` on the last page.
    pub next: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_page_has_no_next() {
        let page = Page::new(2, None);
        let ids: Vec<_> = [3, 2, 1].map(Uuid::from_u128).to_vec();
        let listed = page.cut(ids.clone(), |id| *id);
        assert_eq!(listed.data, ids[..2]);
        assert_eq!(listed.next, Some(Cursor(Uuid::from_u128(2))));
        assert_eq!(page.cut(ids[..2].to_vec(), |id| *id).next, None);
        let cursor = listed.next.unwrap();
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        assert!("x".parse::<Cursor>().is_err());
    }
}
