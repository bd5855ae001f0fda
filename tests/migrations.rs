//! Every migration applies to a database with data of before, and every column says what it is.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is not as it has to be"
)]

use std::{collections::BTreeSet, fs, path::Path};

fn names(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_migration_has_sample_data() {
    assert_eq!(names("migrations"), names("tests/data/migrations"));
}

/// Columns of a `CREATE TABLE` statement, by their indentation in our layout.
fn columns(sql: &str) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut table = None;
    for line in sql.lines() {
        if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
            table = rest.split_whitespace().next().map(ToOwned::to_owned);
        } else if line.starts_with(')') {
            table = None;
        } else if let Some(table) = &table {
            let word = line.split_whitespace().next().unwrap_or_default();
            if word.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !word.is_empty() {
                found.insert((table.clone(), word.to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_column_has_a_comment() {
    let mut silent = Vec::new();
    for name in names("migrations") {
        let sql = read(&format!("migrations/{name}"));
        for (table, column) in columns(&sql) {
            if !sql.contains(&format!("COMMENT ON COLUMN {table}.{column} IS")) {
                silent.push(format!("{name}: {table}.{column}"));
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
}
