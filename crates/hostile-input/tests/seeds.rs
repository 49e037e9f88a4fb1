//! The bodies of the fuzz targets over the committed seeds, and over what is left of each seed when it is damaged.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what failed by panicking"
)]

use std::path::Path;

use hostile_input::{TARGETS, run};

/// Inputs of a target: its name, and what they hold.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
    {
        let path = entry.unwrap().path();
        found.push((path.display().to_string(), std::fs::read(path).unwrap()));
    }
    found
}

#[test]
fn every_seed_leaves_everything_standing() {
    for (target, body) in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for (name, data) in &seeds {
            println!("{name}");
            body(data);
        }
    }
}

/// Every seed read in every way, cut at several places and with a byte changed at others.
#[test]
fn damaged_seeds_leave_everything_standing() {
    for (target, _) in TARGETS {
        for (name, data) in seeds(target) {
            println!("{name}");
            for first in (0..=u8::MAX).step_by(5) {
                let mut other = data.clone();
                if let Some(byte) = other.first_mut() {
                    *byte = first;
                }
                let at = usize::from(first) * data.len() / 256;
                if let Some(byte) = other.get_mut(at.max(1)) {
                    *byte = byte.wrapping_add(first) ^ 0x20;
                }
                run(target, &other);
                run(target, &other[..at]);
            }
        }
    }
}

#[test]
fn every_target_has_a_program_for_the_fuzzer() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    for (target, _) in TARGETS {
        assert!(
            manifest.contains(&format!("name = \"{target}\"")),
            "{target}"
        );
        let file = format!("../../fuzz/fuzz_targets/{target}.rs");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(file).unwrap();
        assert!(
            text.contains(&format!("run(\"{target}\", data)")),
            "{target}"
        );
    }
}
