//! Encryption where the operator wants it: new rooms get it, and where it is required nobody takes it
//! out again or puts something else in its place.

use ruma::{
    UserId,
    api::client::room::create_room::v3::{Request, RoomPreset},
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Map, Value, json};

use super::{Error, Rooms, resident::Room, server_notices};
use crate::{
    config::{self, Encryption},
    event::build::Draft,
};

/// The only algorithm of rooms that the specification recommends.
const ALGORITHM: &str = "m.megolm.v1.aes-sha2";

/// Types of what is not encrypted in encrypted rooms either, since clients cannot do otherwise: what
/// is encrypted already, what refers to it in the clear (the specification has no encrypted
/// reactions and redactions), and who is in a call, for clients do not encrypt what they have sent
/// later by the server (MSC4140), which is how a call is left.
const CLEAR: [&str; 5] = [
    "m.room.encrypted",
    "m.reaction",
    "m.room.redaction",
    "m.rtc.member",
    "org.matrix.msc4143.rtc.member",
];

/// The rules for the rooms that a user creates: the server has no keys for its own notices.
pub(super) fn rules(rooms: &Rooms, creator: &UserId) -> config::Rooms {
    let mut rules = rooms.ctx().config.rooms.clone();
    if server_notices::is_sender(rooms, creator) {
        rules.encryption = Encryption::Off;
    }
    rules
}

/// The event that a new room gets beside what the client gives; `None`: it gets none.
pub(super) fn draft(
    config: &config::Rooms,
    request: &Request,
    preset: &RoomPreset,
    given: &[Draft],
) -> Result<Option<Draft>, Error> {
    let is_given = |kind: &TimelineEventType| given.iter().any(|draft| draft.kind == *kind);
    let creation = request.creation_content.as_ref();
    let creation: Map<String, Value> = creation
        .and_then(|raw| serde_json::from_str(raw.json().get()).ok())
        .unwrap_or_default();
    // Nobody talks in a space, and what is in it shall be found.
    let is_space = creation.get("type").and_then(Value::as_str) == Some("m.space");
    // A room that is upgraded stays what it is, unless that is not allowed any more.
    let is_upgrade = creation.contains_key("predecessor") && !config.encryption_required;
    let is_meant = match config.encryption {
        Encryption::Off => false,
        Encryption::Private => is_private(preset, given),
        Encryption::All => true,
    };
    if !is_meant || is_space || is_upgrade || is_given(&TimelineEventType::RoomEncryption) {
        return Ok(None);
    }
    let content = json!({ "algorithm": ALGORITHM });
    let draft = Draft::state_of(TimelineEventType::RoomEncryption, "", &content)?;
    Ok(Some(draft))
}

/// Whether not everybody may enter: by the join rule that the client gives, else by the preset.
fn is_private(preset: &RoomPreset, given: &[Draft]) -> bool {
    let mut rules = given.iter();
    let rule = rules.find(|draft| draft.kind == TimelineEventType::RoomJoinRules);
    match rule {
        Some(draft) => content(draft)["join_rule"] != "public",
        None => *preset != RoomPreset::PublicChat,
    }
}

fn content(draft: &Draft) -> Value {
    serde_json::from_str(draft.content.get()).unwrap_or_default()
}

/// Refuses an event of one of our users that would encrypt a room in some other way, or in none.
pub(super) fn check(config: &config::Rooms, draft: &Draft) -> Result<(), Error> {
    let is_about =
        draft.kind == TimelineEventType::RoomEncryption && draft.state_key.as_deref() == Some("");
    if config.encryption_required && is_about && content(draft)["algorithm"] != ALGORITHM {
        let why = format!("rooms here are encrypted by {ALGORITHM}");
        return Err(Error::Forbidden(why));
    }
    Ok(())
}

/// Refuses what is to be said in the clear in an encrypted room, where encryption is required:
/// whoever reads the database would read it. That goes for application services as well, which
/// would otherwise carry everything out of a room that is said in it.
pub(super) async fn check_message(rooms: &Rooms, room: &Room, draft: &Draft) -> Result<(), Error> {
    let is_required = rooms.ctx().config.rooms.encryption_required;
    let kind = draft.kind.to_string();
    if !is_required || draft.state_key.is_some() || CLEAR.contains(&kind.as_str()) {
        return Ok(());
    }
    let head = room.head();
    let state = &head.state.entries;
    let found = rooms.state_event(room, state, &StateEventType::RoomEncryption, "");
    if found.await?.is_none() {
        return Ok(());
    }
    let why = "this room is encrypted, and this server takes nothing unencrypted for it";
    Err(Error::Forbidden(why.to_owned()))
}
