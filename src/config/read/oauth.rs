//! The section `[oauth]`.

use url::Url;

use super::super::{WellKnown, oauth::OAuth, oidc::is_here, source::Source};

/// `None`: clients log in by the endpoints of the specification that are older.
pub(super) fn read(source: &mut Source, well_known: &WellKnown) -> Option<OAuth> {
    let key = "oauth.enabled";
    if !source.flag(key, false) {
        return None;
    }
    let Some(base) = &well_known.client else {
        let remedy = "needs well_known.client: the addresses of the pages begin with it";
        source.problem(key, Some("true".to_owned()), remedy);
        return None;
    };
    // What is no address at all is told by the reader of well_known.
    let url = Url::parse(base).ok()?;
    if url.scheme() != "https" && !is_here(&url) {
        let remedy = "must begin with https:// where oauth.enabled is true: passwords are typed on \
                      the pages there";
        source.problem("well_known.client", Some(format!("{base:?}")), remedy);
    }
    if url.query().is_some() || url.fragment().is_some() {
        let remedy = "may have no query and no fragment where oauth.enabled is true";
        source.problem("well_known.client", Some(format!("{base:?}")), remedy);
    }
    Some(OAuth {
        base_url: url.as_str().trim_end_matches('/').to_owned(),
    })
}
