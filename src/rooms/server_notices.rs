//! What the agency tells its users in the chat itself, as a user that speaks and does not listen
//! (specification, module "Server Notices"; Synapse's admin API `send_server_notice`).
//!
//! Each user has one room for that, with the user of the notices and nobody else: that account has no
//! session, so every room that it is joined to was made here. Two nodes that send a user the first
//! notice of all at the same instant can make two; the older one is used from then on.

use ruma::{
    OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::room::create_room::v3::{Request, RoomPreset},
    events::{StateEventType, TimelineEventType, room::member::MembershipState, tag::TagName},
    serde::Raw,
};
use serde::Deserialize;
use serde_json::{Map, json, value::RawValue};

use super::{
    Error, Rooms, create, membership, persist, raw,
    send::{self, Txn},
    succession,
};
use crate::{
    config::ServerNotices,
    context::Context,
    event::build::Draft,
    storage::{self, UserNid},
    users::{self, account_data, profile, registration, terms, tokens::Session},
};

/// Power in the room: nobody but the sender of the notices says anything.
const POWER: i64 = -10;

/// A notice that an administrator sends.
#[derive(Debug, Deserialize)]
pub struct Notice {
    /// To whom.
    pub user_id: OwnedUserId,
    /// Type of the event; `m.room.message` where none is given.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// For a state event.
    pub state_key: Option<String>,
    /// Content.
    pub content: Box<RawValue>,
}

/// Who sends notices; `None`: they are off.
pub fn sender(ctx: &Context) -> Option<OwnedUserId> {
    let notices = ctx.config.server_notices.as_ref()?;
    UserId::parse_with_server_name(&*notices.localpart, ctx.server_name()).ok()
}

/// Whether that user sends notices.
pub(super) fn is_sender(rooms: &Rooms, user: &UserId) -> bool {
    sender(rooms.ctx()).is_some_and(|sender| sender == user)
}

/// Makes the account that sends, and has it look as configured. Called at each start.
pub async fn prepare(ctx: &Context) -> anyhow::Result<()> {
    let (Some(user), Some(notices)) = (sender(ctx), &ctx.config.server_notices) else {
        return Ok(());
    };
    match registration::create_account(ctx, &user, None, (false, Some("bot")), None).await {
        Err(crate::users::Error::NameTaken) => {
            let nid = ctx.db.ids.user(&user).await?;
            let mut conn = ctx.db.conn().await?;
            let account = storage::users::find(&mut conn, nid).await?;
            if account.is_some_and(|account| account.password_hash.is_some()) {
                anyhow::bail!(
                    "server_notices.localpart: {user} is somebody's account; choose another name"
                );
            }
        }
        made => made?,
    }
    let shown = profile::get(ctx, &user).await?;
    for (field, wanted) in [
        ("displayname", Some(&notices.display_name)),
        ("avatar_url", notices.avatar_url.as_ref()),
    ] {
        let wanted = wanted.map(|text| json!(text));
        if shown.get(field) != wanted.as_ref() {
            profile::set(ctx, &user, field, wanted).await?;
        }
    }
    Ok(())
}

/// Sends a notice to one of our users. With `txn`, exactly once however often it is called.
pub async fn send(rooms: &Rooms, notice: &Notice, txn: Option<Txn>) -> Result<OwnedEventId, Error> {
    let from = sender(rooms.ctx()).ok_or(Error::SwitchedOff)?;
    let to = &notice.user_id;
    if !persist::is_local(rooms, to) {
        let why = "notices are for users of this server";
        return Err(Error::InvalidParam(why.to_owned()));
    }
    if !registration::exists(rooms.ctx(), to).await? {
        return Err(Error::UserNotFound(to.clone()));
    }
    let room_id = {
        let first = Txn::new(&from, "", "room of notices", to.as_str());
        let _one = rooms.0.underway.claim(first.id()).await;
        room(rooms, &from, to).await?
    };
    let kind = notice.kind.as_deref().unwrap_or("m.room.message");
    let kind = TimelineEventType::from(kind);
    let draft = match &notice.state_key {
        Some(key) => Draft::state(kind, key.clone(), notice.content.clone()),
        None => Draft::message(kind, notice.content.clone()),
    };
    let sent = send::send(rooms, &room_id, &from, &draft, txn).await?;
    Ok(sent.event_id)
}

/// Whether that is the room for a user.
pub async fn is_room_of(rooms: &Rooms, room_id: &str, user: UserNid) -> Result<bool, Error> {
    let Some(from) = sender(rooms.ctx()) else {
        return Ok(false);
    };
    let ids = &rooms.ctx().db.ids;
    let from = ids.user(&from).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let found = storage::memberships::find_shared(&mut conn, from, user).await?;
    drop(conn);
    match found {
        Some(nid) => Ok(ids.room_id(nid).await? == room_id),
        None => Ok(false),
    }
}

/// Tells a user once of terms that are to be accepted, where the operator wants it.
pub async fn tell_terms(rooms: &Rooms, session: &Session) -> Result<(), Error> {
    let ctx = rooms.ctx();
    let terms = ctx.config.terms.as_ref().filter(|terms| terms.notice);
    let (Some(terms), true, Some(from)) = (terms, session.owes_terms, sender(ctx)) else {
        return Ok(());
    };
    let version = terms::version(terms);
    let mut conn = ctx.db.conn().await?;
    let user = session.user_nid;
    if storage::terms::is_told(&mut conn, user, &version).await? {
        return Ok(());
    }
    drop(conn);
    let link = match terms::link(ctx, &session.user_id).await {
        Ok(link) => link,
        Err(users::Error::Storage(error)) => return Err(error.into()),
        Err(_) => return Err(Error::SwitchedOff),
    };
    let text = format!(
        "Bitte lesen Sie, was für diesen Dienst gilt, und stimmen Sie zu: {link}\n\n\
         Please read what holds for this service, and agree: {link}"
    );
    let notice = Notice {
        user_id: session.user_id.clone(),
        kind: None,
        state_key: None,
        content: raw(&json!({ "msgtype": "m.text", "body": text }))?,
    };
    // One notice, however many syncs and nodes ask at once.
    let txn = Txn::new(&from, session.user_id.as_str(), "terms", &version);
    send(rooms, &notice, Some(txn)).await?;
    let mut conn = ctx.db.conn().await?;
    storage::terms::update_told(&mut conn, user, &version).await?;
    Ok(())
}

/// The room for a user, who is invited to it at least.
async fn room(rooms: &Rooms, from: &UserId, to: &UserId) -> Result<OwnedRoomId, Error> {
    let ids = &rooms.ctx().db.ids;
    let (sender, user) = (ids.user(from).await?, ids.user(to).await?);
    let mut conn = rooms.ctx().db.conn().await?;
    let found = storage::memberships::find_shared(&mut conn, sender, user).await?;
    drop(conn);
    let room_id = match found {
        Some(nid) => ids.room_id(nid).await?,
        None => create(rooms, from).await?,
    };
    let now = membership::current(rooms, &room_id, to).await?;
    if !matches!(now, Some(MembershipState::Invite | MembershipState::Join)) {
        tag(rooms, &room_id, to).await?;
        membership::invite::invite(rooms, &room_id, from, to, false, None).await?;
        let notices = rooms.ctx().config.server_notices.as_ref();
        if notices.is_some_and(|notices| notices.auto_join) {
            membership::join::join(rooms, &room_id, to, &[], Map::new()).await?;
        }
    }
    Ok(room_id)
}

async fn create(rooms: &Rooms, from: &UserId) -> Result<OwnedRoomId, Error> {
    let notices = rooms.ctx().config.server_notices.as_ref();
    let ServerNotices {
        room_name,
        room_topic,
        room_avatar_url,
        ..
    } = notices.ok_or(Error::SwitchedOff)?;
    let mut request = Request::new();
    request.preset = Some(RoomPreset::PrivateChat);
    request.name = Some(room_name.clone());
    request.topic.clone_from(room_topic);
    let levels = json!({ "users_default": POWER });
    request.power_level_content_override = Some(Raw::from_json(raw(&levels)?));
    let mut more = Vec::new();
    if let Some(url) = room_avatar_url {
        let kind = TimelineEventType::RoomAvatar;
        more.push(Draft::state_of(kind, "", &json!({ "url": url }))?);
    }
    create::create_with(rooms, from, &request, more).await
}

/// Marks the room for the user's clients, beside what tags it has.
async fn tag(rooms: &Rooms, room_id: &RoomId, user: &UserId) -> Result<(), Error> {
    const TAGS: &str = "m.tag";
    let ids = &rooms.ctx().db.ids;
    let unknown = || Error::RoomNotFound(room_id.to_owned());
    let room = ids.find_room(room_id).await?.ok_or_else(unknown)?;
    let user = ids.user(user).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let stored = storage::account_data::find(&mut conn, user, room.0, TAGS).await?;
    drop(conn);
    let own = json!({ "tags": { TagName::ServerNotice.to_string(): {} } });
    let content = succession::merged_tags(&own.to_string(), &stored.unwrap_or_default());
    account_data::store(rooms.ctx(), user, room.0, (TAGS, &content)).await?;
    Ok(())
}

/// Leaves a room because its user wants that (`POST /leave`). An invitation to notices cannot be
/// refused (`M_CANNOT_LEAVE_SERVER_NOTICE_ROOM`); who has read them may go.
pub async fn leave(
    rooms: &Rooms,
    room_id: &RoomId,
    user: &UserId,
    reason: Option<&str>,
) -> Result<(), Error> {
    if let Some(from) = sender(rooms.ctx())
        && membership::current(rooms, room_id, user).await? == Some(MembershipState::Invite)
    {
        let room = rooms.by_id(room_id).await?;
        let create = StateEventType::RoomCreate;
        let entries = &room.head().state.entries;
        let create = rooms.state_event(&room, entries, &create, "").await?;
        if create.is_some_and(|create| create.sender == from) {
            return Err(Error::Notices);
        }
    }
    membership::leave::leave(rooms, room_id, user, reason).await
}
