//! The section `[media]`.

use super::super::{Media, source::Source};

pub(super) fn read(source: &mut Source, defaults: &Media) -> Media {
    let max_upload_bytes = source.number("media.max_upload_bytes");
    if max_upload_bytes == Some(0) {
        let remedy = "nothing could be uploaded; give a number of bytes, such as 104857600";
        source.problem("media.max_upload_bytes", Some("0".to_owned()), remedy);
    }
    Media {
        max_upload_bytes: max_upload_bytes.unwrap_or(defaults.max_upload_bytes),
        user_quota_bytes: source.number("media.user_quota_bytes"),
        unauthenticated: unauthenticated(source),
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
