//! What locked and suspended accounts and guests may do (specification, "Account locking", "Account suspension",
//! "Guest access"), and what is over. Locked
//! ones log out. Suspended ones read, log in and out, leave rooms, take back what they said, and look after
//! their keys and devices.

use http::{Method, request::Parts};

use super::{App, error::ApiError, terms, validity};
use crate::{
    clock::now_ms,
    users::{self, moderation::Standing, tokens::Session},
};

/// Refuses a request that the account may not make.
pub(super) async fn admit(parts: &Parts, session: &Session, app: &App) -> Result<(), ApiError> {
    let path = parts.uri.path();
    let guests = app.ctx.config.registration.guests;
    let has_ended = session
        .valid_until_ts
        .is_some_and(|until| until <= now_ms());
    if has_ended && !is_end(path) && !validity::is_renewal(path) {
        return Err(users::Error::Expired.into());
    }
    if session.guest && !(is_for_guests(&parts.method, path) && (guests || is_end(path))) {
        return Err(users::Error::NotForGuests.into());
    }
    match session.standing {
        Standing::Suspended if is_act(&parts.method, path) => Err(users::Error::Suspended.into()),
        Standing::Open | Standing::Suspended => terms::admit(parts, session, app).await,
        Standing::Locked if is_end(path) => Ok(()),
        Standing::Locked => Err(users::Error::Locked.into()),
    }
}

/// Whether a request ends sessions.
fn is_end(path: &str) -> bool {
    path.ends_with("/logout") || path.ends_with("/logout/all")
}

/// What of the client API a path names, in parts; empty: nothing of it.
pub(super) fn named(path: &str) -> Vec<&str> {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    if segments.next() != Some("_matrix") || segments.next() != Some("client") {
        return Vec::new();
    }
    let mut rest: Vec<&str> = segments.skip(1).collect();
    // Names below `unstable` come before what is done.
    if rest.first().is_some_and(|first| first.contains('.')) {
        rest.remove(0);
    }
    rest
}

/// Whether guests may ask for that (specification, "Client behaviour" of "Guest access"), or end
/// their session.
fn is_for_guests(method: &Method, path: &str) -> bool {
    let rest = named(path);
    match method.as_str() {
        "GET" => matches!(
            *rest,
            ["account", "whoami"]
                | ["devices" | "events" | "sync"]
                | ["devices", _]
                | ["media", "download" | "thumbnail", ..]
                | ["rooms", _, "context" | "event" | "state", _]
                | ["rooms", _, "initialSync" | "members" | "messages" | "state"]
                | ["rooms", _, "state", _, _]
        ),
        "PUT" => matches!(
            *rest,
            ["devices", _]
                | ["profile", _, "displayname"]
                | ["rooms", _, "send" | "state", _, _]
                | ["rooms", _, "state", _]
                | ["sendToDevice", _, _]
        ),
        "POST" => {
            is_end(path)
                || matches!(
                    *rest,
                    ["keys", "claim" | "query" | "upload"] | ["rooms", _, "join" | "leave"]
                )
        }
        "DELETE" => matches!(*rest, ["profile", _, "displayname"]),
        _ => false,
    }
}

/// Whether a request acts in rooms or on what others see of the user.
fn is_act(method: &Method, path: &str) -> bool {
    let rest = named(path);
    let changes = *method != Method::GET;
    match *rest {
        ["createRoom"]
        | ["join" | "knock", _]
        | [
            "rooms",
            _,
            "join" | "knock" | "invite" | "kick" | "ban" | "unban" | "upgrade",
        ] => true,
        ["rooms", _, "send" | "state" | "delayed_event", ..] | ["profile" | "directory", ..] => {
            changes
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::is_act;

    #[test]
    fn who_is_suspended_reads_leaves_and_takes_back() {
        for (method, path) in [
            (
                Method::PUT,
                "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1",
            ),
            (
                Method::PUT,
                "/_matrix/client/r0/rooms/!a:b/state/m.room.topic",
            ),
            (Method::POST, "/_matrix/client/v3/createRoom"),
            (Method::POST, "/_matrix/client/v3/join/%23a:b"),
            (Method::POST, "/_matrix/client/v3/rooms/!a:b/invite"),
            (Method::PUT, "/_matrix/client/v3/profile/@a:b/displayname"),
            (
                Method::DELETE,
                "/_matrix/client/unstable/uk.tcpip.msc4133/profile/@a:b/m.tz",
            ),
        ] {
            assert!(is_act(&method, path), "{path}");
        }
        for (method, path) in [
            (Method::GET, "/_matrix/client/v3/sync"),
            (Method::GET, "/_matrix/client/v3/rooms/!a:b/state"),
            (Method::GET, "/_matrix/client/v3/profile/@a:b"),
            (Method::POST, "/_matrix/client/v3/rooms/!a:b/leave"),
            (Method::PUT, "/_matrix/client/v3/rooms/!a:b/redact/$c/1"),
            (
                Method::PUT,
                "/_matrix/client/v3/sendToDevice/m.room.encrypted/1",
            ),
            (Method::POST, "/_matrix/client/v3/keys/upload"),
            (Method::POST, "/_matrix/client/v3/rooms/!a:b/read_markers"),
        ] {
            assert!(!is_act(&method, path), "{path}");
        }
    }
}
