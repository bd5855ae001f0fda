//! Values by key, from the environment and the file, with everything wrong kept for the end.
//!
//! The environment wins. Its values are not guessed at, since a secret made of digits is a secret
//! and no number: a value is read as what its key expects.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    str::FromStr,
};

use toml::{Table, Value};

use super::{Problem, Secret, problem::nearest};

/// What every variable of ours begins with; `__` stands for the dot between section and key.
const PREFIX: &str = "AMTSBOTE__";

/// Secrets are short; a file longer than this is the wrong one.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// One layer of keys being read.
#[derive(Debug)]
pub(super) struct Source {
    /// What stands before the keys of this layer in messages, such as `listener[0].`.
    prefix: String,
    file: Table,
    env: BTreeMap<String, String>,
    known: BTreeSet<&'static str>,
    opaque: BTreeSet<&'static str>,
    /// Everything found wrong so far.
    pub(super) problems: Vec<Problem>,
}

/// A value and where it stands.
enum Found {
    File(Value),
    Env(String),
}

impl Found {
    fn shown(&self) -> String {
        match self {
            Self::File(value) => value.to_string(),
            Self::Env(value) => format!("{value:?} (environment)"),
        }
    }
}

impl Source {
    /// A layer of the file's keys and the environment's.
    pub(super) fn new(file: Table, env: impl IntoIterator<Item = (String, String)>) -> Self {
        let env = env.into_iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(PREFIX)?;
            Some((key.to_ascii_lowercase().replace("__", "."), value))
        });
        Self::layer(String::new(), file, env.collect())
    }

    fn layer(prefix: String, file: Table, env: BTreeMap<String, String>) -> Self {
        Self {
            prefix,
            file,
            env,
            known: BTreeSet::new(),
            opaque: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Notes something wrong with a key.
    pub(super) fn problem(&mut self, key: &str, value: Option<String>, remedy: impl Into<String>) {
        let key = format!("{}{key}", self.prefix);
        let remedy = remedy.into();
        self.problems.push(Problem { key, value, remedy });
    }

    fn find(&mut self, key: &'static str) -> Option<Found> {
        self.known.insert(key);
        if let Some(value) = self.env.get(key) {
            return Some(Found::Env(value.clone()));
        }
        let mut parts = key.split('.');
        let first = self.file.get(parts.next()?)?;
        let value = parts.try_fold(first, |value, part| value.get(part))?;
        Some(Found::File(value.clone()))
    }

    fn wrong(&mut self, key: &str, found: &Found, remedy: impl Into<String>) {
        self.problem(key, Some(found.shown()), remedy);
    }

    /// A string.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        match self.find(key)? {
            Found::Env(value) | Found::File(Value::String(value)) => Some(value),
            other @ Found::File(_) => {
                self.wrong(key, &other, "expected text in quotation marks");
                None
            }
        }
    }

    /// `true` or `false`; `default` where nothing is said.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let found = self.find(key);
        match found {
            None => default,
            Some(Found::File(Value::Boolean(value))) => value,
            Some(Found::Env(value)) if value == "true" => true,
            Some(Found::Env(value)) if value == "false" => false,
            Some(other) => {
                self.wrong(key, &other, "expected true or false");
                default
            }
        }
    }

    /// A whole number that is not negative.
    pub(super) fn number(&mut self, key: &'static str) -> Option<u64> {
        let found = self.find(key)?;
        let number = match &found {
            Found::File(Value::Integer(number)) => u64::try_from(*number).ok(),
            Found::File(_) => None,
            Found::Env(text) => text.trim().parse().ok(),
        };
        if number.is_none() {
            self.wrong(key, &found, "expected a whole number");
        }
        number
    }

    /// A list of strings; in the environment separated by commas.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        let found = self.find(key);
        let values = match &found {
            None => return Vec::new(),
            Some(Found::Env(text)) if !text.starts_with('[') => {
                return text
                    .split(',')
                    .map(|item| item.trim().to_owned())
                    .filter(|item| !item.is_empty())
                    .collect();
            }
            Some(Found::Env(text)) => parse_inline(text),
            Some(Found::File(value)) => Some(value.clone()),
        };
        let strings = values.and_then(|value| value.try_into::<Vec<String>>().ok());
        strings.unwrap_or_else(|| {
            if let Some(found) = found {
                self.wrong(
                    key,
                    &found,
                    r#"expected a list of texts, such as ["a", "b"]"#,
                );
            }
            Vec::new()
        })
    }

    /// A list of values that may be tables; in the environment texts separated by commas, or a list
    /// as in the file.
    pub(super) fn values(&mut self, key: &'static str) -> Vec<Value> {
        let found = self.find(key);
        self.opaque.insert(key);
        let values = match &found {
            None => return Vec::new(),
            Some(Found::Env(text)) if !text.starts_with('[') => {
                let items = text.split(',').map(str::trim);
                let items = items.filter(|item| !item.is_empty());
                return items.map(|item| Value::String(item.to_owned())).collect();
            }
            Some(Found::Env(text)) => parse_inline(text),
            Some(Found::File(value)) => Some(value.clone()),
        };
        match (values, found) {
            (Some(Value::Array(values)), _) => values,
            (_, Some(found)) => {
                self.wrong(key, &found, r#"expected a list, such as ["a", "b"]"#);
                Vec::new()
            }
            (_, None) => Vec::new(),
        }
    }

    /// A value of any type that is written as text.
    pub(super) fn parse<T: FromStr>(&mut self, key: &'static str, remedy: &str) -> Option<T> {
        let text = self.text(key)?;
        if let Ok(value) = text.parse() {
            return Some(value);
        }
        self.problem(key, Some(format!("{text:?}")), remedy);
        None
    }

    /// A list of values that are written as text.
    pub(super) fn parse_list<T: FromStr>(&mut self, key: &'static str, remedy: &str) -> Vec<T> {
        let mut values = Vec::new();
        for text in self.list(key) {
            match text.parse() {
                Ok(value) => values.push(value),
                Err(_) => self.problem(key, Some(format!("{text:?}")), remedy),
            }
        }
        values
    }

    /// A file that must be there and readable.
    pub(super) fn readable(&mut self, key: &'static str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key)?);
        self.check_readable(key, &path);
        Some(path)
    }

    /// Notes it where a file cannot be read.
    pub(super) fn check_readable(&mut self, key: &str, path: &Path) {
        let opened = std::fs::File::open(path).and_then(|file| file.metadata());
        let remedy = match opened {
            Ok(metadata) if metadata.is_file() => return,
            Ok(_) => "is not a file; give the path of a file".to_owned(),
            Err(error) => format!("cannot be read ({error}); give the path of a file we may read"),
        };
        self.problem(key, Some(format!("{:?}", path.display())), remedy);
    }

    /// A secret: given in `key`, or in the file that `key_file` names, never both.
    pub(super) fn secret(&mut self, key: &'static str, key_file: &'static str) -> Option<Secret> {
        let inline = match self.find(key) {
            None => None,
            Some(Found::Env(value) | Found::File(Value::String(value))) => Some(value),
            Some(Found::File(_)) => {
                self.problem(key, None, "expected text in quotation marks");
                return None;
            }
        };
        let path = self.text(key_file);
        let (value, key) = match (inline, path) {
            (Some(_), Some(_)) => {
                let remedy = format!("{key_file} is given as well; give one of the two");
                self.problem(key, None, remedy);
                return None;
            }
            (Some(value), None) => (value, key),
            (None, Some(path)) => (self.secret_file(key_file, Path::new(&path))?, key_file),
            (None, None) => return None,
        };
        if value.is_empty() {
            self.problem(key, None, "is empty; give a value or leave the key out");
            return None;
        }
        Some(Secret(value))
    }

    /// The content of a file that holds a secret, without the line end that editors add.
    pub(super) fn secret_file(&mut self, key: &'static str, path: &Path) -> Option<String> {
        let size = std::fs::metadata(path).map(|metadata| metadata.len());
        let remedy = match size {
            Ok(size) if size > SECRET_BYTES_MAX => "is too large to hold secrets".to_owned(),
            Ok(_) => match std::fs::read_to_string(path) {
                Ok(text) => return Some(text.trim_end_matches(['\r', '\n']).to_owned()),
                Err(error) => format!("cannot be read ({error}); check path and owner"),
            },
            Err(error) => format!("cannot be read ({error}); check path and owner"),
        };
        self.problem(key, Some(format!("{:?}", path.display())), remedy);
        None
    }

    /// Runs `read` over each table of an array of tables; whether the key is given at all.
    pub(super) fn tables(&mut self, key: &'static str, mut read: impl FnMut(&mut Source)) -> bool {
        let Some(found) = self.find(key) else {
            return false;
        };
        self.opaque.insert(key);
        let value = match &found {
            Found::File(value) => Some(value.clone()),
            Found::Env(text) => parse_inline(text),
        };
        let Some(tables) = value.and_then(|value| value.try_into::<Vec<Table>>().ok()) else {
            self.wrong(key, &found, format!("expected sections [[{key}]]"));
            return true;
        };
        for (index, table) in tables.into_iter().enumerate() {
            let prefix = format!("{}{key}[{index}].", self.prefix);
            let mut layer = Source::layer(prefix, table, BTreeMap::new());
            read(&mut layer);
            self.problems.extend(layer.finish());
        }
        true
    }

    /// A table handed on as it is.
    pub(super) fn json(&mut self, key: &'static str) -> Option<serde_json::Value> {
        let found = self.find(key)?;
        self.opaque.insert(key);
        let json = match &found {
            Found::File(value @ Value::Table(_)) => serde_json::to_value(value).ok(),
            Found::File(_) => None,
            Found::Env(text) => serde_json::from_str(text).ok(),
        };
        if json.is_none() {
            self.wrong(key, &found, "expected a table (in the environment: JSON)");
        }
        json
    }

    /// Whether a section is there, whatever it holds.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// Adds every key that nobody asked for to what is wrong, and hands all of it out.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        let mut given = Vec::new();
        leaves(
            "",
            &Value::Table(std::mem::take(&mut self.file)),
            &self.opaque,
            &mut given,
        );
        let of_env = self.env.keys().map(|key| (key.clone(), " (environment)"));
        given.extend(of_env.collect::<Vec<_>>());
        for (key, place) in given {
            let inside_opaque = self.opaque.iter().any(|known| key.starts_with(*known));
            if self.known.contains(key.as_str()) || inside_opaque {
                continue;
            }
            let hint = match nearest(&key, self.known.iter().copied()) {
                Some(known) => format!("did you mean {}{known}?", self.prefix),
                None => "remove it, or see config/example.toml for the keys there are".to_owned(),
            };
            self.problem(&key, None, format!("there is no such key{place}; {hint}"));
        }
        self.problems
    }
}

/// A value written as in TOML, as the environment gives lists and tables.
fn parse_inline(text: &str) -> Option<Value> {
    let mut table: Table = format!("value = {text}").parse().ok()?;
    table.remove("value")
}

/// Dotted paths of everything that is no table.
fn leaves(
    path: &str,
    value: &Value,
    opaque: &BTreeSet<&'static str>,
    found: &mut Vec<(String, &'static str)>,
) {
    match value {
        Value::Table(table) if !opaque.contains(path) => {
            for (key, value) in table {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(&format!("{path}{dot}{key}"), value, opaque, found);
            }
        }
        _ => found.push((path.to_owned(), "")),
    }
}
