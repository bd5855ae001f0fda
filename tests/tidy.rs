//! House rules that a machine can check (docs/STYLE.md, docs/ARCHITECTURE.md).

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is not as it has to be"
)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// Floors, lowest first. A module imports lower floors only; two of one floor do not know each
/// other, but for `storage`, `event` and their like, which are one module each.
const FLOORS: [&[&str]; 15] = [
    &["clock"],
    &["config"],
    &["event", "telemetry", "postgres", "blobs"],
    &["storage"],
    &["federation", "mail"],
    &["appservices", "oidc"],
    &["context"],
    &["users"],
    &["devices"],
    &["media"],
    &["rooms"],
    &["sync", "jobs"],
    &["http"],
    &["server"],
    &["cli"],
];

/// Imports that go up, each with its reason.
const EXCEPTIONS: [(&str, &str); 1] =
    // The keeper asks the database whether it answers.
    [("postgres", "storage")];

const LINES_MAX: usize = 500;

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut found,
    );
    found
}

/// The part of a file before its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn module_of(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inside = path.strip_prefix(root).unwrap();
    let first = inside
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_str()
        .unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn report(problems: &BTreeSet<String>) {
    assert!(
        problems.is_empty(),
        "\n{}",
        problems.iter().cloned().collect::<Vec<_>>().join("\n")
    );
}

/// Modules named after `crate::` in a file: `crate::a::…` and `crate::{a, b::…}`.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let name = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect()
    };
    for rest in text.split("crate::").skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut item = true;
            for (at, c) in list.char_indices() {
                if item && depth == 0 && c.is_ascii_lowercase() {
                    found.insert(name(&list[at..]));
                    item = false;
                }
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => item = true,
                    _ => {}
                }
            }
        } else {
            found.insert(name(rest));
        }
    }
    found
}

#[test]
fn imports_go_down() {
    let mut problems = BTreeSet::new();
    for (path, text) in sources("src") {
        let module = module_of(&path);
        let Some(own) = floor(&module) else {
            if module != "lib" && module != "main" {
                problems.insert(format!("module {module} stands on no floor"));
            }
            continue;
        };
        for import in imports(without_tests(&text)) {
            let allowed = import == module
                || floor(&import).is_none_or(|other| other < own)
                || EXCEPTIONS.contains(&(module.as_str(), import.as_str()));
            if !allowed {
                problems.insert(format!(
                    "{}: {module} may not import {import}",
                    path.display()
                ));
            }
        }
    }
    report(&problems);
}

#[test]
fn sql_lives_in_storage_and_its_definition_in_migrations() {
    let mut problems = BTreeSet::new();
    for (path, text) in sources("src") {
        let code = without_tests(&text);
        if module_of(&path) != "storage" && code.contains("sqlx::query") {
            problems.insert(format!("{}: SQL outside storage", path.display()));
        }
        for word in ["CREATE TABLE", "ALTER TABLE", "DROP TABLE", "CREATE INDEX"] {
            if code.contains(word) {
                problems.insert(format!("{}: {word} outside migrations", path.display()));
            }
        }
    }
    report(&problems);
}

#[test]
fn http_is_known_to_the_top_only() {
    let mut problems = BTreeSet::new();
    for (path, text) in sources("src") {
        let top = ["http", "server"].contains(&module_of(&path).as_str());
        if !top && without_tests(&text).contains("axum::") {
            problems.insert(format!("{}: axum below the top floor", path.display()));
        }
    }
    report(&problems);
}

#[test]
fn paths_are_taken_apart_in_one_place() {
    let mut problems = BTreeSet::new();
    for (path, text) in sources("src/http") {
        // axum would answer a path that cannot be in plain text.
        let list = text.split("extract::{").nth(1).unwrap_or_default();
        let list = list.split('}').next().unwrap_or_default();
        let takes = list.split(',').any(|item| item.trim() == "Path");
        if (takes || text.contains("extract::Path")) && !path.ends_with("federation/keys.rs") {
            problems.insert(format!("{}: axum's Path", path.display()));
        }
    }
    report(&problems);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut problems = BTreeSet::new();
    for (path, text) in sources("src") {
        let lines = without_tests(&text).lines().count();
        if lines > LINES_MAX {
            problems.insert(format!("{}: {lines} lines", path.display()));
        }
        if !text.starts_with("//! ") {
            problems.insert(format!("{}: no sentence at its head", path.display()));
        }
    }
    report(&problems);
}

#[test]
fn tests_ask_servers_through_the_rig_alone() {
    let mut problems = BTreeSet::new();
    for (path, text) in sources("tests/it") {
        // There answers are held against the specification.
        if text.contains("reqwest") && !path.ends_with("rig/http.rs") {
            for word in [".send()", "reqwest::get("] {
                if text.contains(word) {
                    problems.insert(format!("{}: {word} instead of ask()", path.display()));
                }
            }
        }
    }
    report(&problems);
}

#[test]
fn nothing_is_called_a_service_or_a_helper() {
    let banned = ["_service", "_manager", "_helper", "utils", "common"];
    let mut problems = BTreeSet::new();
    for (path, _) in sources("src") {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if banned.iter().any(|word| name.contains(word)) {
            problems.insert(format!("{}: say what it is", path.display()));
        }
    }
    report(&problems);
}

/// Method and path of every endpoint, as the comments above the handlers say.
fn endpoints() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (_, text) in sources("src/http") {
        for line in text.lines() {
            let Some(rest) = line.trim().strip_prefix("/// `") else {
                continue;
            };
            let code = rest.split('`').next().unwrap_or_default();
            let Some((method, path)) = code.split_once(' ') else {
                continue;
            };
            if method.chars().all(|c| c.is_ascii_uppercase()) && path.starts_with('/') {
                found.insert((path.to_owned(), method.to_owned()));
            }
        }
    }
    found
}

#[test]
fn endpoints_are_listed() {
    let mut text = "# Endpoints\n\nWhat this server serves. Written by `./dev endpoints` from the \
        comments above the handlers; a test holds it true.\n\n| method | path |\n|---|---|\n"
        .to_owned();
    for (path, method) in endpoints() {
        writeln!(text, "| {method} | `{path}` |").unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ENDPOINTS.md");
    if std::env::var_os("AMTSBOTE_WRITE_ENDPOINTS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let listed = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        listed, text,
        "docs/ENDPOINTS.md is out of date: ./dev endpoints"
    );
}
