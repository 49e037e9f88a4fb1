//! A throwaway Postgres cluster in a temporary folder, for tests.
