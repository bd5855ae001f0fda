//! The section `[push]`.

use super::super::{Push, source::Source};

/// Who delays notices by more than this does not mean it.
const JITTER_MS_MAX: u64 = 3_600_000;

pub(super) fn read(source: &mut Source, defaults: Push) -> Push {
    let key = "push.jitter_ms";
    let jitter_ms = source.number(key).unwrap_or(defaults.jitter_ms.into());
    if jitter_ms > JITTER_MS_MAX {
        let remedy = "is more than an hour; give milliseconds, such as 10000";
        source.problem(key, Some(jitter_ms.to_string()), remedy);
    }
    let mut flag = |key: &'static str, default| source.flag(key, default);
    Push {
        enabled: flag("push.enabled", defaults.enabled),
        include_content: flag("push.include_content", defaults.include_content),
        group_unread_count_by_room: flag(
            "push.group_unread_count_by_room",
            defaults.group_unread_count_by_room,
        ),
        names_in_texts: flag("push.names_in_texts", defaults.names_in_texts),
        jitter_ms: u32::try_from(jitter_ms).unwrap_or(defaults.jitter_ms),
        allow_http: flag("push.allow_http", defaults.allow_http),
    }
}
