//! Terms of use and declarations on data protection that users accept.

use std::collections::BTreeMap;

/// What users accept.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Whether who has not accepted it may only read and leave.
    pub required: bool,
    /// Whether who has not accepted it is told so in the room of server notices.
    pub notice: bool,
    /// The policies, each for itself; there is at least one.
    pub policies: Vec<Policy>,
    /// Base address of the links: `well_known.client`.
    pub base_url: String,
}

/// A text that is accepted as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name for programs, such as `privacy_policy`.
    pub id: String,
    /// Its version: who accepted another one has not accepted this.
    pub version: String,
    /// What it is called and where it stands, by language (RFC 5646).
    pub texts: BTreeMap<String, PolicyText>,
}

/// A policy in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText {
    /// Its name for people.
    pub name: String,
    /// Where it is.
    pub place: Place,
}

/// Where a text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this address.
    Url(String),
    /// Here: the text itself, which the server shows.
    Here(String),
}
