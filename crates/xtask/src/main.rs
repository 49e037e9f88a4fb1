//! Generate, tidy, test and measure: the project's own chores.
fn main() {}
