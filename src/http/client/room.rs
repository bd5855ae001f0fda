//! Rooms: creating them, their events, aliases and members.

use axum::{
    Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::get,
};
use ruma::{
    EventId, RoomId,
    api::client::{
        context::get_context,
        membership::{get_member_events, joined_members},
        redact::redact_event,
        room::{
            aliases, create_room, get_event_by_timestamp, get_room_event, get_summary, upgrade_room,
        },
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use super::message::{Filtered, lazy_members, related, render};
use crate::{
    event::{
        build::Draft,
        client::{Shape, to_client},
    },
    http::{
        App,
        error::ApiError,
        limits::Kind,
        mount,
        reply::{Object, RawJson},
        request::{Asking, Authenticated, Public},
    },
    rooms::{
        self, Rooms,
        relations::redaction,
        send::{self, Txn},
        spaces::preview,
        timeline, unredacted, visibility,
    },
    storage,
    users::{self, moderation::Standing, tokens::Session},
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<create_room::v3::Request, _, _>(Router::new(), create_room);
    let router = mount::<get_room_event::v3::Request, _, _>(router, get_room_event);
    let router = mount::<upgrade_room::v3::Request, _, _>(router, upgrade_room);
    let router = mount::<get_event_by_timestamp::v1::Request, _, _>(router, get_event_by_timestamp);
    let router = mount::<aliases::v3::Request, _, _>(router, room_aliases);
    let router = mount::<get_context::v3::Request, _, _>(router, get_context);
    let router = mount::<redact_event::v3::Request, _, _>(router, redact_event);
    let router = mount::<get_member_events::v3::Request, _, _>(router, get_member_events);
    let router = mount::<joined_members::v3::Request, _, _>(router, joined_members);
    // Where clients ask first, in the words of MSC3266.
    let router = router.route(
        "/_matrix/client/unstable/im.nheko.summary/summary/{room_id_or_alias}",
        get(get_summary_unstable),
    );
    mount::<get_summary::v1::Request, _, _>(router, get_summary)
}

/// `POST /_matrix/client/v3/createRoom`
async fn create_room(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<create_room::v3::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::RoomCreation, &session)?;
    for user in &request.invite {
        app.limits
            .check_by(&session, Kind::InviteUser, user.as_str())?;
    }
    let room_id = rooms::create::create(&app.rooms, session.asking(), &request).await?;
    Ok(Object(json!({ "room_id": room_id })))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/upgrade`
async fn upgrade_room(
    State(app): State<App>,
    Authenticated {
        session, request, ..
    }: Authenticated<upgrade_room::v3::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::RoomCreation, &session)?;
    let (room, user) = (&request.room_id, &session.user_id);
    let creators = &request.additional_creators;
    let new =
        rooms::upgrade::upgrade(&app.rooms, room, user, &request.new_version, creators).await?;
    Ok(Object(json!({ "replacement_room": new })))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
async fn get_event_by_timestamp(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_event_by_timestamp::v1::Request>,
) -> Result<Object, ApiError> {
    let ts = i64::from(request.ts.get());
    let near = (ts, request.dir == ruma::api::Direction::Backward);
    let (room, user) = (&request.room_id, &session.user_id);
    let event = rooms::at_time::nearest(&rooms, room, user, near).await?;
    Ok(Object(json!({
        "event_id": event.pdu.event_id,
        "origin_server_ts": event.pdu.origin_server_ts,
    })))
}

/// `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`
async fn get_summary(
    State(app): State<App>,
    asking: Option<Asking>,
    Public {
        request, address, ..
    }: Public<get_summary::v1::Request>,
) -> Result<Object, ApiError> {
    if asking.is_none() {
        app.limits.check_address(Kind::Preview, address)?;
    }
    let user = asking
        .as_ref()
        .map(|Asking(session)| (&*session.user_id, session.user_nid));
    let (room, via) = (&request.room_id_or_alias, &request.via);
    let (summary, membership) = preview::of(&app.rooms, user, room, via).await?;
    let mut answer = Value::Object(summary.json());
    if let Some(membership) = membership {
        answer["membership"] = json!(membership);
    }
    Ok(Object(answer))
}

/// `GET /_matrix/client/unstable/im.nheko.summary/summary/{roomIdOrAlias}` (MSC3266)
async fn get_summary_unstable(
    app: State<App>,
    asking: Option<Asking>,
    request: Public<get_summary::v1::Request>,
) -> Result<Object, ApiError> {
    let Object(mut answer) = get_summary(app, asking, request).await?;
    for name in ["room_version", "encryption"] {
        if let Some(value) = answer.get(name).cloned() {
            answer[format!("im.nheko.summary.{name}")] = value;
        }
    }
    Ok(Object(answer))
}

/// Whether what a redacted event said is asked for (MSC2815).
#[derive(Deserialize)]
struct Unredacted {
    #[serde(default, rename = "fi.mau.msc2815.include_unredacted_content")]
    wanted: bool,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
async fn get_room_event(
    State(rooms): State<Rooms>,
    unredacted: Result<Query<Unredacted>, QueryRejection>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_room_event::v3::Request>,
) -> Result<RawJson, ApiError> {
    let (user, id) = (&session.user_id, &request.event_id);
    let found = timeline::event(&rooms, &request.room_id, user, id).await;
    let (room, viewer, event) = match found {
        // Who may not read it is not told whether it exists (specification).
        Err(rooms::Error::NotJoined { .. }) => return Err(rooms::Error::EventNotFound.into()),
        found => found?,
    };
    let Query(unredacted) =
        unredacted.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    let event = if unredacted.wanted && unredacted::keep_ms(&rooms) > 0 {
        unredacted::find(&rooms, &room, &viewer, event).await?
    } else {
        event
    };
    let events = render(&rooms, &room, &session, &[event]).await?;
    Ok(RawJson(
        events
            .first()
            .map_or_else(String::new, |event| event.get().to_owned()),
    ))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/aliases`
async fn room_aliases(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<aliases::v3::Request>,
) -> Result<Object, ApiError> {
    let (room, _) = visibility::enter(&rooms, &request.room_id, &session.user_id).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let aliases = storage::aliases::list(&mut conn, room.nid).await?;
    Ok(Object(json!({ "aliases": aliases })))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
async fn get_context(
    State(rooms): State<Rooms>,
    filtered: Result<Query<Filtered>, QueryRejection>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_context::v3::Request>,
) -> Result<Object, ApiError> {
    let limit = u64::from(request.limit)
        .try_into()
        .unwrap_or(timeline::PAGE_MAX);
    let (room_id, event_id) = (&request.room_id, &request.event_id);
    let around = timeline::around(&rooms, room_id, &session.user_id, event_id, limit).await?;
    let room = &around.room;
    let passes = |event: &rooms::Event| crate::sync::filter::passes(&request.filter, &event.pdu);
    let mut before: Vec<_> = around.before.into_iter().filter(passes).collect();
    let mut after: Vec<_> = around.after.into_iter().filter(passes).collect();
    let related = related(filtered)?;
    related.retain(&rooms, room, &mut before).await?;
    related.retain(&rooms, room, &mut after).await?;
    let here = around.event.stored.seq.unwrap_or_default();
    let start = before
        .last()
        .and_then(|event| event.stored.seq)
        .unwrap_or(here);
    let end = after
        .last()
        .and_then(|event| event.stored.seq)
        .unwrap_or(here);
    let all: Vec<rooms::Event> = before
        .iter()
        .chain(&after)
        .chain([&around.event])
        .cloned()
        .collect();
    let mut state = lazy_members(&rooms, room, &request.filter, &all).await?;
    if state.is_empty() {
        let entries = room.head().state.entries.clone();
        let nids: Vec<i64> = entries.values().copied().collect();
        let pdus = rooms.pdus(room, &nids).await?;
        state.extend(
            pdus.iter()
                .map(|pdu| to_client(pdu, Shape::Timeline, Map::new())),
        );
    }
    let shown = render(&rooms, room, &session, &all).await?;
    let (earlier, later) = shown.split_at(before.len());
    let (later, event) = later.split_at(after.len());
    Ok(Object(json!({
        "event": event.first(),
        "events_before": earlier,
        "events_after": later,
        "start": timeline::token(start),
        "end": timeline::token(end + 1),
        "state": state,
    })))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
async fn redact_event(
    State(app): State<App>,
    claimed: Result<Query<super::state::Claimed>, QueryRejection>,
    Authenticated {
        session,
        request,
        path,
        body,
        ..
    }: Authenticated<redact_event::v3::Request>,
) -> Result<Object, ApiError> {
    let target = (&*request.room_id, &*request.event_id);
    admit_redaction(&app, &session, target).await?;
    let with = with_relations(&body)?;
    let draft = Draft::redaction(request.event_id.clone(), request.reason.as_deref());
    let mut draft = draft.map_err(|error| ApiError::internal(&error))?;
    let Query(claimed) = claimed.map_err(|error| ApiError::invalid_param(&error.body_text()))?;
    draft.ts = session.ts(claimed.ts()?);
    let txn_id = request.txn_id.as_str();
    let txn = Txn::new(&session.user_id, session.device_id.as_str(), &path, txn_id);
    let room = &request.room_id;
    let sent = send::send(&app.rooms, room, &session.user_id, &draft, Some(txn)).await?;
    let reason = request.reason.as_deref();
    redaction::begin(&app.rooms, &session, target, with, reason).await?;
    let device = (session.user_nid, session.device_no);
    app.rooms.remember_echo(&sent.event_id, device, txn_id);
    Ok(Object(json!({ "event_id": sent.event_id })))
}

/// Who is suspended redacts what is their own, and that of others is counted apart. Whose an event is
/// is looked up only for who is held to that.
async fn admit_redaction(
    app: &App,
    session: &Session,
    target: (&RoomId, &EventId),
) -> Result<(), ApiError> {
    let is_suspended = session.standing == Standing::Suspended;
    if !is_suspended && !app.limits.hold(session) {
        return Ok(());
    }
    let is_own = send::is_own(&app.rooms, &session.user_id, target).await?;
    if is_suspended && !is_own {
        return Err(users::Error::Suspended.into());
    }
    let kind = if is_own {
        Kind::Message
    } else {
        Kind::AdminRedaction
    };
    app.limits.check_user(kind, session)
}

/// Relation types of what is redacted as well (MSC3912).
fn with_relations(body: &[u8]) -> Result<Vec<String>, ApiError> {
    #[derive(Default, serde::Deserialize)]
    struct With {
        #[serde(default, rename = "org.matrix.msc3912.with_relations")]
        unstable: Vec<String>,
        #[serde(default, rename = "with_rel_types")]
        stable: Vec<String>,
    }
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let with: With =
        serde_json::from_slice(body).map_err(|error| ApiError::bad_json(&error.to_string()))?;
    let rels = [with.unstable, with.stable].concat();
    redaction::check(&rels)?;
    Ok(rels)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/members`
async fn get_member_events(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<get_member_events::v3::Request>,
) -> Result<Object, ApiError> {
    visibility::enter(&rooms, &request.room_id, &session.user_id).await?;
    rooms.whole(&request.room_id).await?;
    let (room, viewer) = visibility::enter(&rooms, &request.room_id, &session.user_id).await?;
    let entries = match &request.at {
        Some(at) => timeline::state_at(&rooms, &room, &viewer, at).await?,
        None => viewer.entries(&room),
    };
    let nids: Vec<i64> = entries
        .iter()
        .filter(|(skey, _)| **skey < 0)
        .map(|(_, event)| *event)
        .collect();
    let pdus = rooms.pdus(&room, &nids).await?;
    let wanted = |membership: Option<&str>| {
        let is = |given: &Option<_>| -> bool {
            given.as_ref().map(ToString::to_string).as_deref() == membership
        };
        (request.membership.is_none() || is(&request.membership))
            && (request.not_membership.is_none() || !is(&request.not_membership))
    };
    let chunk: Vec<Box<RawValue>> = pdus
        .iter()
        .filter(|pdu| wanted(pdu.membership().map(|m| m.to_string()).as_deref()))
        .map(|pdu| to_client(pdu, Shape::Timeline, Map::new()))
        .collect();
    Ok(Object(json!({ "chunk": chunk })))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/joined_members`, also for who looks into a room that
/// anybody may read: clients make their preview of it from that.
async fn joined_members(
    State(rooms): State<Rooms>,
    Authenticated {
        session, request, ..
    }: Authenticated<joined_members::v3::Request>,
) -> Result<Object, ApiError> {
    visibility::present(&rooms, &request.room_id, &session.user_id).await?;
    let room = rooms.whole(&request.room_id).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let members = storage::memberships::list_in_room(&mut conn, room.nid, &[1]).await?;
    drop(conn);
    let nids: Vec<i64> = members.iter().map(|(_, _, event)| *event).collect();
    let mut joined = Map::new();
    for pdu in rooms.pdus(&room, &nids).await? {
        let content: Map<String, Value> = pdu.content_as().unwrap_or_default();
        let mut member = Map::new();
        for (from, to) in [
            ("displayname", "display_name"),
            ("avatar_url", "avatar_url"),
        ] {
            let text = content.get(from).and_then(Value::as_str);
            member.insert(to.to_owned(), json!(text));
        }
        joined.insert(
            pdu.state_key.clone().unwrap_or_default(),
            Value::Object(member),
        );
    }
    Ok(Object(json!({ "joined": joined })))
}
