//! Glob patterns of push rules: `*` for any run of characters, `?` for one, without regard to case.

use regex::{Regex, RegexBuilder};

/// Bytes of a compiled pattern; what is larger matches nothing. Rules refuse patterns that could
/// come near.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A compiled pattern. Matching takes time in proportion to the text.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// No wildcards; in lower case.
    Literal(String),
    /// With wildcards, for a whole value or for words in it.
    Glob(Box<Regex>),
    /// Matches nothing.
    Never,
}

impl Pattern {
    /// A pattern for a whole value or, with `words`, for whole words anywhere in it
    /// (specification, "Conditions for push rules", `event_match`).
    pub(super) fn new(glob: &str, words: bool) -> Self {
        if !glob.contains(['*', '?']) {
            return Self::Literal(glob.to_lowercase());
        }
        let mut text = String::from(if words { "(?:^|[^A-Za-z0-9_])" } else { "^" });
        for c in glob.chars() {
            match c {
                '*' => text.push_str(".*?"),
                '?' => text.push('.'),
                c => text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        text.push_str(if words { "(?:[^A-Za-z0-9_]|$)" } else { "$" });
        let built = RegexBuilder::new(&text)
            .case_insensitive(true)
            .dot_matches_new_line(true)
            .size_limit(COMPILED_BYTES_MAX)
            .build();
        built.map_or(Self::Never, |regex| Self::Glob(Box::new(regex)))
    }

    /// Whether a whole value fits.
    pub(super) fn fits(&self, value: &str) -> bool {
        match self {
            // Most values differ in the first character: no need to put all of it in lower case.
            Self::Literal(literal) => {
                let mut lower = value.chars().flat_map(char::to_lowercase);
                let same = literal.chars().all(|c| lower.next() == Some(c));
                same && lower.next().is_none()
            }
            Self::Glob(regex) => regex.is_match(value),
            Self::Never => false,
        }
    }

    /// Whether it stands as words in a text, which is given as it is and in lower case.
    pub(super) fn is_in(&self, text: &str, lower: &str) -> bool {
        match self {
            Self::Literal(literal) => has_words(lower, literal),
            Self::Glob(regex) => regex.is_match(text),
            Self::Never => false,
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Whether `words` stands in a text, with something else than a word character around it.
pub(super) fn has_words(text: &str, words: &str) -> bool {
    if words.is_empty() {
        return false;
    }
    let bytes = text.as_bytes();
    // A finder is built once and each search begins behind the last hit: linear, whatever repeats.
    let mut hits = memchr::memmem::find_iter(bytes, words.as_bytes());
    hits.any(|at| {
        let end = at + words.len();
        (at == 0 || !is_word(bytes[at - 1])) && (end == bytes.len() || !is_word(bytes[end]))
    })
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    fn in_body(glob: &str, body: &str) -> bool {
        Pattern::new(glob, true).is_in(body, &body.to_lowercase())
    }

    fn fits(glob: &str, value: &str) -> bool {
        Pattern::new(glob, false).fits(value)
    }

    #[test]
    fn words_of_a_body_stand_alone() {
        assert!(in_body("cake", "Cake!"));
        assert!(in_body("cake", "a cake, and cakes"));
        assert!(in_body("cake", "cakes and cake"));
        assert!(!in_body("cake", "cakes"));
        assert!(!in_body("cake", "_cake_"));
        assert!(in_body("cake*lie", "the CAKE is a lie."));
        assert!(!in_body("cake*lie", "the cake is a liege"));
        assert!(in_body("ca?e", "a cafe"));
        assert!(!in_body("ca?e", "a cafes"));
        assert!(in_body("straße", "An der Straße 1"));
        assert!(!in_body("", "anything"));
    }

    #[test]
    fn other_values_fit_as_a_whole() {
        assert!(fits("m.notice", "M.Notice"));
        assert!(!fits("m.notice", "m.notices"));
        assert!(fits("lunc?*", "LUNCH plans"));
        assert!(!fits("lunc?*", " lunch"));
        assert!(!fits("lunc?*", "lunc"));
        assert!(fits("*", ""));
        assert!(fits("a.b(c", "A.B(C"));
        assert!(fits("a*c", "a\nc"));
    }

    #[test]
    fn hostile_texts_take_no_longer_than_others() {
        let body = "a".repeat(60_000);
        assert!(!in_body("a*a*a*a*a*a*a*b", &body));
        assert!(!in_body(&"a".repeat(400), &format!("{body}_")));
        assert!(!fits("*a*a*a*a*a*a*a*b", &body));
    }
}
