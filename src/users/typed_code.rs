//! Short codes that people read in one place and type in another.

/// Letters of a code: none that is read as another, and none that make words.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// 20⁸ codes are too many to guess one in the few tries that there are.
const CODE_CHARS: usize = 8;

/// A code that nobody knows.
pub fn fresh() -> String {
    let draw = |_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    (0..CODE_CHARS).map(draw).collect()
}

/// A code as people are shown it.
pub fn shown(code: &str) -> String {
    let (first, second) = code.split_at(CODE_CHARS / 2);
    format!("{first}-{second}")
}

/// A code as people type it: with hyphens, spaces and small letters as they like. `None`: it is none.
pub fn typed(text: &str) -> Option<String> {
    let kept = text.chars().filter(char::is_ascii_alphanumeric);
    let code: String = kept
        .map(|c| c.to_ascii_uppercase())
        .take(CODE_CHARS + 1)
        .collect();
    let is_code = code.len() == CODE_CHARS && code.bytes().all(|byte| LETTERS.contains(&byte));
    is_code.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::{fresh, shown, typed};

    #[test]
    fn codes_are_typed_as_people_like() {
        assert_eq!(shown("BCDFGHJK"), "BCDF-GHJK");
        let code = fresh();
        assert_eq!(typed(&shown(&code)), Some(code));
        for good in ["BCDF-GHJK", "bcdfghjk", " bcdf ghjk ", "b-c-d-f-g-h-j-k"] {
            assert_eq!(typed(good).as_deref(), Some("BCDFGHJK"), "{good}");
        }
        for bad in [
            "",
            "BCDF",
            "BCDFGHJKL",
            "ABCDEFGH",
            "BCDF-GHJ1",
            &"B".repeat(10_000),
        ] {
            assert_eq!(typed(bad), None, "{bad}");
        }
    }
}
