//! The program tollway: the request path, the admin API, metrics and configuration.
