//! Rebuilds the crate when a migration changes: the SQL is built into the program.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
