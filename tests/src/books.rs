//! Where a test's books are kept: a SQLite file or a Postgres database, each of its own.

use std::sync::Arc;

use tempfile::TempDir;

/// Which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Books {
    /// The embedded default.
    Sqlite,
    /// A database of its own on the server that the tests share.
    Postgres,
}

impl Books {
    /// Both, for tests about money.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];
}

/// A place for books, gone when its last owner is.
#[derive(Clone, Debug)]
pub struct Place {
    url: String,
    _folder: Option<Arc<TempDir>>,
}

impl Place {
    /// An empty one.
    pub async fn new(books: Books) -> Self {
        match books {
            Books::Sqlite => {
                let folder = TempDir::new().expect("a temporary folder");
                Self {
                    url: format!("sqlite://{}", folder.path().join("books.db").display()),
                    _folder: Some(Arc::new(folder)),
                }
            }
            Books::Postgres => {
                let database = tokio::task::spawn_blocking(throwaway_postgres::shared)
                    .await
                    .expect("no panic")
                    .expect("a Postgres server");
                Self::at(database.url().to_owned())
            }
        }
    }

    /// At an address of the test's own.
    #[must_use]
    pub const fn at(url: String) -> Self {
        Self { url, _folder: None }
    }

    /// The database's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}
