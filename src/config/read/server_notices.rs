//! The section `[server_notices]`.

use super::super::{ServerNotices, source::Source};

/// `None`: no name is given, so notices are off.
pub(super) fn read(source: &mut Source) -> Option<ServerNotices> {
    let display_name = source.text("server_notices.display_name");
    let avatar_url = media(source, "server_notices.avatar_url");
    let room_name = source.text("server_notices.room_name");
    let room_topic = source.text("server_notices.room_topic");
    let room_avatar_url = media(source, "server_notices.room_avatar_url");
    let auto_join = source.flag("server_notices.auto_join", false);
    let key = "server_notices.localpart";
    let localpart = source.text(key)?;
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if localpart.is_empty() || localpart.len() > 100 || !localpart.bytes().all(is_plain) {
        let remedy = "is no name for a user: use small letters, digits, dots, hyphens and \
                      underscores, such as \"mitteilungen\"";
        source.problem(key, Some(format!("{localpart:?}")), remedy);
    }
    let room_name = room_name.unwrap_or_else(|| "Server notices".to_owned());
    Some(ServerNotices {
        localpart,
        display_name: display_name.unwrap_or_else(|| room_name.clone()),
        avatar_url,
        room_name,
        room_topic,
        room_avatar_url,
        auto_join,
    })
}

/// An address of media.
fn media(source: &mut Source, key: &'static str) -> Option<String> {
    let url = source.text(key)?;
    if !url.starts_with("mxc://") {
        let remedy = "is no address of media; upload the picture and give its mxc:// address";
        source.problem(key, Some(format!("{url:?}")), remedy);
    }
    Some(url)
}
