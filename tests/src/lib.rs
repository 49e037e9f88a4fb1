//! The whole program over HTTP: what the test files share.
