//! Where it is kept: accounts, keys, grants, leases and the journal, on SQLite or Postgres; the only crate with SQL.
