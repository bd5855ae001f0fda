//! The section `[media]`.

use std::time::Duration;

use super::super::{Media, source::Source};

/// Seconds of the units that lengths of time are given in.
const UNITS: [(char, u64); 5] = [
    ('s', 1),
    ('m', 60),
    ('h', 3_600),
    ('d', 86_400),
    ('w', 7 * 86_400),
];

pub(super) fn read(source: &mut Source, defaults: Media) -> Media {
    let max_upload_bytes = source.number("media.max_upload_bytes");
    if max_upload_bytes == Some(0) {
        let remedy = "nothing could be uploaded; give a number of bytes, such as 104857600";
        source.problem("media.max_upload_bytes", Some("0".to_owned()), remedy);
    }
    Media {
        max_upload_bytes: max_upload_bytes.unwrap_or(defaults.max_upload_bytes),
        user_quota_bytes: source.number("media.user_quota_bytes"),
        unauthenticated: unauthenticated(source),
        remote_lifetime: lifetime(source, "media.remote_lifetime", defaults.remote_lifetime),
        local_lifetime: lifetime(source, "media.local_lifetime", defaults.local_lifetime),
    }
}

fn unauthenticated(source: &mut Source) -> bool {
    let key = "media.unauthenticated";
    match source.text(key).as_deref() {
        None | Some("off") => false,
        Some("on") => true,
        Some(other) => {
            source.problem(
                key,
                Some(format!("{other:?}")),
                "expected \"off\" or \"on\"",
            );
            false
        }
    }
}

/// `"90d"`, or `"off"` for no end.
fn lifetime(source: &mut Source, key: &'static str, default: Option<Duration>) -> Option<Duration> {
    let Some(text) = source.text(key) else {
        return default;
    };
    if text == "off" {
        return None;
    }
    let parsed = UNITS.iter().find_map(|(unit, seconds)| {
        let number = text.strip_suffix(*unit)?.parse::<u64>().ok()?;
        number.checked_mul(*seconds).filter(|seconds| *seconds > 0)
    });
    if parsed.is_none() {
        let remedy = "is not a length of time; write it as \"90d\" or \"12h\", or \"off\"";
        source.problem(key, Some(format!("{text:?}")), remedy);
    }
    parsed.map(Duration::from_secs)
}
