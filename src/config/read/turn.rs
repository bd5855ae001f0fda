//! The sections `[turn]` and `[rtc]`.

use super::super::{Rtc, Turn, source::Source};

/// Who wants credentials to be good for longer does not mean it.
const LIFETIME_MAX: u64 = 30 * 86_400;

pub(super) fn read(source: &mut Source, defaults: &Turn) -> Turn {
    let uris = source.list("turn.uris");
    for uri in &uris {
        let known = ["turn:", "turns:", "stun:", "stuns:"];
        if !known.iter().any(|scheme| uri.starts_with(scheme)) {
            let remedy = "is no address of a TURN server; they look like \
                          turn:turn.amt.example:3478?transport=udp";
            source.problem("turn.uris", Some(format!("{uri:?}")), remedy);
        }
    }
    let shared_secret = source.secret("turn.shared_secret", "turn.shared_secret_file");
    if uris.is_empty() != shared_secret.is_none() {
        let remedy = "addresses and secret of a TURN server go together: set turn.uris and one of \
                      turn.shared_secret and turn.shared_secret_file, or none of them";
        source.problem("turn", None, remedy);
    }
    let key = "turn.lifetime_seconds";
    let lifetime = source
        .number(key)
        .unwrap_or(defaults.lifetime_seconds.into());
    if !(1..=LIFETIME_MAX).contains(&lifetime) {
        let remedy = "must be between a second and 30 days, such as 86400";
        source.problem(key, Some(lifetime.to_string()), remedy);
    }
    Turn {
        uris,
        shared_secret,
        lifetime_seconds: u32::try_from(lifetime).unwrap_or(defaults.lifetime_seconds),
    }
}

pub(super) fn rtc(source: &mut Source) -> Rtc {
    let key = "rtc.livekit_service_urls";
    let urls = source.list(key);
    for text in &urls {
        let url = text.parse::<url::Url>().ok();
        let fits = url.is_some_and(|url| {
            matches!(url.scheme(), "https" | "http")
                && url.host().is_some()
                && url.username().is_empty()
                && url.password().is_none()
        });
        if !fits {
            let remedy = "is not the address of a service; write it as \"https://rtc.amt.example\"";
            source.problem(key, Some(format!("{text:?}")), remedy);
        }
    }
    Rtc {
        livekit_service_urls: urls,
    }
}
