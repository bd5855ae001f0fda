//! The section `[terms]`.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use serde::Deserialize;
use url::Url;

use super::super::{
    WellKnown,
    source::Source,
    terms::{Place, Policy, PolicyText, Terms},
};

/// Bytes of a text: a book has as many.
const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Policies of a server, and characters of a name or a version.
const POLICIES_MAX: usize = 20;
const CHARS_MAX: usize = 100;

/// A policy as it stands in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    version: String,
    texts: BTreeMap<String, TextEntry>,
}

/// One of its texts: at an address, or in a file of plain text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextEntry {
    name: String,
    url: Option<String>,
    file: Option<String>,
}

/// `None`: nothing is to be accepted. `has_notices`: somebody tells users something.
pub(super) fn read(
    source: &mut Source,
    well_known: &WellKnown,
    has_notices: bool,
) -> Option<Terms> {
    let required = source.flag("terms.required", false);
    let notice = source.flag("terms.notice", false);
    let key = "terms.policies";
    let values = source.values(key);
    if values.is_empty() {
        for (key, is_on) in [("terms.required", required), ("terms.notice", notice)] {
            if is_on {
                let remedy = "needs terms.policies: there is nothing to accept";
                source.problem(key, Some("true".to_owned()), remedy);
            }
        }
        return None;
    }
    if notice && !has_notices {
        let remedy = "needs server_notices.localpart: somebody has to tell";
        source.problem("terms.notice", Some("true".to_owned()), remedy);
    }
    if well_known.client.is_none() {
        let remedy = "is missing; links to terms begin with it, so that [terms] needs it";
        source.problem("well_known.client", None, remedy);
    }
    if values.len() > POLICIES_MAX {
        source.problem(key, None, format!("are too many; {POLICIES_MAX} may be"));
    }
    let mut policies: Vec<Policy> = Vec::new();
    for (index, value) in values.into_iter().take(POLICIES_MAX).enumerate() {
        let key = format!("{key}[{index}]");
        match value.try_into::<Entry>() {
            Ok(entry) if policies.iter().any(|known| known.id == entry.id) => {
                let remedy = "names a policy twice; give each its own id";
                source.problem(&key, Some(format!("{:?}", entry.id)), remedy);
            }
            Ok(entry) => policies.extend(policy(source, &key, entry)),
            Err(error) => {
                let remedy = format!(
                    "is no policy ({}); write it as {{ id = \"privacy_policy\", version = \"1\", \
                     texts = {{ de = {{ name = \"Datenschutzerklärung\", url = \"https://…\" }} }} }}",
                    error.message()
                );
                source.problem(&key, None, remedy);
            }
        }
    }
    Some(Terms {
        required,
        notice,
        policies,
        base_url: well_known.client.clone().unwrap_or_default(),
    })
}

fn policy(source: &mut Source, key: &str, entry: Entry) -> Option<Policy> {
    let before = source.problems.len();
    // Both stand in paths.
    let is_plain = |text: &str| {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !text.is_empty() && text.len() <= CHARS_MAX && text.bytes().all(is_legal)
    };
    for (name, text) in [("id", &entry.id), ("version", &entry.version)] {
        if !is_plain(text) {
            let remedy = "may hold letters, digits and . _ - only";
            source.problem(&format!("{key}.{name}"), Some(format!("{text:?}")), remedy);
        }
    }
    if entry.texts.is_empty() {
        let remedy = "is empty; give the policy in one language at least, such as de";
        source.problem(&format!("{key}.texts"), None, remedy);
    }
    let mut texts = BTreeMap::new();
    for (language, text) in entry.texts {
        let key = format!("{key}.texts.{language}");
        let is_tag = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        // Clients read the version beside the languages.
        if language == "version" || language.len() > 35 || !language.bytes().all(is_tag) {
            source.problem(&key, None, "is no language; give a tag such as de or en");
        }
        if text.name.is_empty() || text.name.chars().count() > CHARS_MAX {
            let remedy = format!("is no name; give 1 to {CHARS_MAX} characters");
            source.problem(&format!("{key}.name"), None, remedy);
        }
        let place = place(source, &key, text.url, text.file.as_deref());
        let name = text.name;
        texts.extend(place.map(|place| (language, PolicyText { name, place })));
    }
    (source.problems.len() == before).then_some(Policy {
        id: entry.id,
        version: entry.version,
        texts,
    })
}

fn place(source: &mut Source, key: &str, url: Option<String>, file: Option<&str>) -> Option<Place> {
    match (url, file) {
        (Some(url), None) => {
            let parsed = Url::parse(&url).ok();
            if !parsed.is_some_and(|url| ["http", "https"].contains(&url.scheme())) {
                let remedy = "is not a web address; give the one where the text stands";
                source.problem(&format!("{key}.url"), Some(format!("{url:?}")), remedy);
                return None;
            }
            Some(Place::Url(url))
        }
        (None, Some(file)) => match text_of(Path::new(file)) {
            Ok(text) => Some(Place::Here(text)),
            Err(why) => {
                let remedy = format!("cannot be used ({why}); give a file of plain text in UTF-8");
                source.problem(&format!("{key}.file"), Some(format!("{file:?}")), remedy);
                None
            }
        },
        (Some(_), Some(_)) | (None, None) => {
            let remedy = "give either url (where the text stands) or file (plain text, shown here)";
            source.problem(key, None, remedy);
            None
        }
    }
}

fn text_of(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut file = file.take(TEXT_BYTES_MAX + 1);
    let length = file.read_to_string(&mut text);
    let length = length.map_err(|error| error.to_string())?;
    if u64::try_from(length).unwrap_or(u64::MAX) > TEXT_BYTES_MAX {
        return Err("it is too large".to_owned());
    }
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(text)
}
