//! Ids of media, and the media that an event names.

use std::collections::BTreeSet;

use ruma::ServerName;

const SCHEME: &str = "mxc://";
/// Characters of a media id.
const ID_MAX: usize = 255;
/// Ids that one event is believed to name: in 64 KiB there is room for no more addresses with ids as we give
/// them, of 32 letters (`media::upload`), so that of a large pack of pictures none is left out.
const IDS_MAX: usize = 1_600;

/// What a media id is made of.
fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Whether a text can be a media id.
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= ID_MAX && text.chars().all(is_letter)
}

/// Ids of the media of a server that a JSON text names, wherever: each once, so many at most. Costs next to
/// nothing where it names none.
pub fn named<'a>(server: &ServerName, json: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for (at, _) in json.match_indices(SCHEME) {
        let rest = json[at + SCHEME.len()..].strip_prefix(server.as_str());
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix('/')) else {
            continue;
        };
        let id = beginning(rest, is_letter);
        // In a text an underscore after the id may be markup, which ours do not contain.
        let plain = beginning(id, |c| c.is_ascii_alphanumeric());
        let ids = [id, plain].into_iter();
        found.extend(ids.filter(|id| is_id(id)));
        if found.len() >= IDS_MAX {
            break;
        }
    }
    found
}

/// The characters of a text from its beginning that fit.
fn beginning(text: &str, fits: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !fits(c)).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use ruma::server_name;

    use super::{IDS_MAX, named};

    fn ids(json: &str) -> Vec<&str> {
        let found = named(server_name!("amt.example"), json);
        found.into_iter().collect()
    }

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        let json = r#"{"content":{"url":"mxc://amt.example/A1","info":{"thumbnail_url":
            "mxc://amt.example/B2"},"formatted_body":"<img src=\"mxc://amt.example/C3\"> mxc://amt.example/D4?x
            _mxc://amt.example/E5_ mxc://amt.example/A1"}}"#;
        assert_eq!(ids(json), ["A1", "B2", "C3", "D4", "E5", "E5_"]);
    }

    #[test]
    fn what_is_of_others_or_no_address_is_not() {
        for json in [
            r#"{"url":"mxc://other.example/A1"}"#,
            r#"{"url":"mxc://amt.example:8448/A1"}"#,
            r#"{"url":"mxc://amt.example.org/A1"}"#,
            r#"{"url":"mxc://xamt.example/A1"}"#,
            r#"{"url":"https://amt.example/A1"}"#,
            r#"{"url":"mxc://amt.example/"}"#,
            r#"{"url":"mxc://amt.example/../A1"}"#,
            "mxc://",
            "mxc://amt.example",
            "",
        ] {
            assert!(ids(json).is_empty(), "{json}");
        }
        let long = format!("mxc://amt.example/{}", "a".repeat(256));
        assert!(ids(&long).is_empty());
    }

    #[test]
    fn no_event_names_more_than_a_number() {
        let mut json = String::new();
        for number in 0..100_000 {
            write!(json, "mxc://amt.example/{number} ").unwrap();
        }
        assert_eq!(ids(&json).len(), IDS_MAX);
    }

    proptest! {
        #[test]
        fn texts_do_not_panic(text in "(mxc://|amt.example|/|[A-Za-zä]|\\PC){0,60}") {
            for id in ids(&text) {
                let address = format!("mxc://amt.example/{id}");
                prop_assert!(text.contains(&address));
            }
        }
    }
}
