//! What is wrong with a configuration, told so that it can be put right.

use std::{fmt, path::PathBuf};

/// One thing to put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, with dots between sections.
    pub key: String,
    /// What stands there, as far as it may be shown.
    pub value: Option<String>,
    /// What is wrong and what to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}: {}", self.key, self.remedy),
            None => write!(f, "{}: {}", self.key, self.remedy),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}. Check the path given with --config and who may read the file", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {source}", path = .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// The file says things that cannot be, all of them listed.
    #[error("{} to put right in the configuration:{}", count(.0), list(.0))]
    Invalid(Vec<Problem>),
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "one thing".to_owned(),
        n => format!("{n} things"),
    }
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    format!("\n  {}", lines.join("\n  "))
}

/// The known word that a mistyped one is nearest to, if any is near.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's edit distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_mistyped_key_is_recognized() {
        let known = ["server_name", "data_dir", "registration.open"];
        assert_eq!(nearest("servername", known), Some("server_name"));
        assert_eq!(
            nearest("registation.open", known),
            Some("registration.open")
        );
        assert_eq!(nearest("colour", known), None);
    }
}
