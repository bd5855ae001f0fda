//! Creating a room: a list of drafts, made by pure functions, and one commit that holds them all.

use std::sync::Arc;

use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId,
    api::client::room::{
        Visibility,
        create_room::v3::{Request, RoomPreset},
    },
    events::TimelineEventType,
};
use serde_json::{Map, Value, json};

use super::{
    Error, FIRST_SEQ, Rooms, aliases, encryption, membership,
    persist::{Accepted, Plan, Written},
    resident::{Head, Room},
    send::{Built, add_local, auth_slice, authorize, position},
    state::State,
};
use crate::{
    clock::now_ms,
    config::{self, Appservice},
    event::{
        build::{self, Draft, Place},
        pdu::Pdu,
        version::RoomVersion,
    },
    storage::{self, append::flag},
    users::registration,
};

/// Invitations in one request: each of a remote user is a call to a peer.
const INVITES_MAX: usize = 100;
/// State events that a client may give.
const INITIAL_STATE_MAX: usize = 200;

/// Creates a room (`POST /createRoom`, in the order of the specification) and returns its id.
/// `asking`: the application service that speaks for the creator.
pub async fn create(
    rooms: &Rooms,
    (creator, asking): (&UserId, Option<&Appservice>),
    request: &Request,
) -> Result<OwnedRoomId, Error> {
    check(request)?;
    if let Some(alias) = alias_of(rooms, request)? {
        aliases::check_reserved(rooms, &alias, asking)?;
    }
    for user in &request.invite {
        // One of an application service comes into being now, if at all.
        if rooms.ctx().appservices.has_user(user) {
            registration::exists(rooms.ctx(), user).await?;
        }
        if super::persist::is_local(rooms, user) {
            membership::invite::check_wanted(rooms, creator, user).await?;
        }
    }
    create_with(rooms, creator, request, Vec::new()).await
}

/// The same with further events at the end, as many as there are.
pub(super) async fn create_with(
    rooms: &Rooms,
    creator: &UserId,
    request: &Request,
    mut more: Vec<Draft>,
) -> Result<OwnedRoomId, Error> {
    let wanted = request
        .room_version
        .as_ref()
        .unwrap_or(&rooms.ctx().config.rooms.default_version);
    let version = RoomVersion::supported(wanted)
        .ok_or_else(|| Error::UnsupportedVersion(wanted.to_string()))?;
    let alias = alias_of(rooms, request)?;
    if let Some(alias) = &alias
        && is_taken(rooms, alias).await?
    {
        return Err(Error::AliasTaken(alias.to_string()));
    }
    let pdu = Arc::new(create_event(rooms, creator, request, &version)?);
    let room = new_room(rooms, &pdu, version).await?;

    let (local, remote): (Vec<&OwnedUserId>, Vec<&OwnedUserId>) = request
        .invite
        .iter()
        .partition(|user| super::persist::is_local(rooms, user));
    let mut content = Map::new();
    content.insert("membership".to_owned(), json!("join"));
    let mut drafts = vec![membership::draft_with_profile(rooms, creator, content).await?];
    drafts.extend(self::drafts(
        creator,
        request,
        (&room.version, &encryption::rules(rooms, creator)),
        alias.as_deref(),
    )?);
    drafts.append(&mut more);
    for user in local {
        drafts.push(membership::invitation(rooms, user, request.is_direct, None).await?);
    }
    write(rooms, &room, creator, pdu, &drafts).await?;
    publish(rooms, &room, creator, request, alias.as_deref()).await?;
    for user in remote {
        // The room stands; a peer that cannot be reached now does not undo it.
        let invited =
            membership::invite::invite(rooms, &room.id, creator, user, request.is_direct, None);
        if let Err(error) = invited.await {
            tracing::info!(%error, room_id = %room.id, "invitation with the creation of a room failed");
        }
    }
    Ok(room.id.clone())
}

fn check(request: &Request) -> Result<(), Error> {
    if request.invite.len() > INVITES_MAX {
        return Err(Error::Invalid(format!(
            "at most {INVITES_MAX} users can be invited at once"
        )));
    }
    if request.initial_state.len() > INITIAL_STATE_MAX {
        return Err(Error::Invalid(format!(
            "at most {INITIAL_STATE_MAX} initial state events"
        )));
    }
    if !request.invite_3pid.is_empty() {
        return Err(Error::Forbidden(
            "invitations by e-mail or phone are not offered".to_owned(),
        ));
    }
    Ok(())
}

fn alias_of(rooms: &Rooms, request: &Request) -> Result<Option<OwnedRoomAliasId>, Error> {
    let Some(name) = &request.room_alias_name else {
        return Ok(None);
    };
    if name.is_empty() || name.contains([':', '#', '\0']) || name.contains(char::is_whitespace) {
        return Err(Error::Invalid(
            "room_alias_name may hold no white space, # or :".to_owned(),
        ));
    }
    RoomAliasId::parse(format!("#{name}:{}", rooms.ctx().server_name()))
        .map(Some)
        .map_err(|error| Error::Invalid(error.to_string()))
}

async fn is_taken(rooms: &Rooms, alias: &RoomAliasId) -> Result<bool, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    Ok(storage::aliases::find(&mut conn, alias).await?.is_some())
}

fn create_event(
    rooms: &Rooms,
    creator: &UserId,
    request: &Request,
    version: &RoomVersion,
) -> Result<Pdu, Error> {
    let content = create_content(creator, request, version)?;
    let draft = Draft::state_of(TimelineEventType::RoomCreate, "", &content)?;
    let room_id =
        (!version.has_hashed_room_id()).then(|| RoomId::new_v1(rooms.ctx().server_name()));
    let place = Place {
        room_id: room_id.as_deref(),
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
    };
    Ok(build::build(
        &draft,
        &place,
        creator,
        now_ms(),
        version,
        &rooms.ctx().keys,
    )?)
}

fn create_content(
    creator: &UserId,
    request: &Request,
    version: &RoomVersion,
) -> Result<Map<String, Value>, Error> {
    let mut content: Map<String, Value> = match &request.creation_content {
        Some(raw) => serde_json::from_str(raw.json().get())
            .map_err(|error| Error::Invalid(format!("creation_content: {error}")))?,
        None => Map::new(),
    };
    content.insert("room_version".to_owned(), json!(version.id));
    let rules = &version.rules.authorization;
    if rules.use_room_create_sender {
        content.remove("creator");
    } else {
        content.insert("creator".to_owned(), json!(creator));
    }
    if rules.additional_room_creators {
        let mut creators = additional_creators(content.remove("additional_creators"))?;
        if request.preset == Some(RoomPreset::TrustedPrivateChat) {
            for user in &request.invite {
                if !creators.contains(user) {
                    creators.push(user.clone());
                }
            }
        }
        if !creators.is_empty() {
            content.insert("additional_creators".to_owned(), json!(creators));
        }
    }
    Ok(content)
}

/// The users whom the client makes creators beside itself.
fn additional_creators(given: Option<Value>) -> Result<Vec<OwnedUserId>, Error> {
    let Some(given) = given else {
        return Ok(Vec::new());
    };
    let creators: Vec<OwnedUserId> = serde_json::from_value(given)
        .map_err(|error| Error::Invalid(format!("additional_creators: {error}")))?;
    for user in &creators {
        user.validate_historical()
            .map_err(|error| Error::Invalid(format!("additional_creators: {error}")))?;
    }
    Ok(creators)
}

async fn new_room(rooms: &Rooms, create: &Pdu, version: RoomVersion) -> Result<Arc<Room>, Error> {
    let mut conn = rooms.ctx().db.conn().await?;
    let nid = storage::rooms::intern(&mut conn, &create.room_id, &version.id, now_ms()).await?;
    Ok(Arc::new(Room::new(
        nid,
        create.room_id.clone(),
        version,
        false,
        Head::empty(),
        0,
    )))
}

impl Head {
    /// The head of a room without events.
    pub(super) fn empty() -> Self {
        Self {
            rev: -1,
            seq: FIRST_SEQ,
            depth: 0,
            extremities: Vec::new(),
            state: State::default(),
            last_ts: 0,
        }
    }
}

/// Builds every event on the one before and writes them in one commit.
async fn write(
    rooms: &Rooms,
    room: &Arc<Room>,
    creator: &UserId,
    create: Arc<Pdu>,
    drafts: &[Draft],
) -> Result<(), Error> {
    let mut tip = room.tip.lock().await;
    let mut plan = Plan::new(room, &tip);
    add_create(rooms, &mut plan, create).await?;
    for draft in drafts {
        let auth = auth_slice(rooms, room, &plan.head, creator, draft).await?;
        let place = position(room, &plan.head, &auth);
        let keys = &rooms.ctx().keys;
        let pdu = build::build(draft, &place, creator, now_ms(), &room.version, keys)?;
        let built = Built {
            pdu: Arc::new(pdu),
            auth,
        };
        authorize(rooms, room, &built).await?;
        add_local(rooms, &mut plan, built, None).await?;
    }
    let (head, pending) = plan.commit(rooms).await?;
    *tip = head;
    drop(tip);
    match pending.written(rooms).await? {
        Written::Yes(pos) => {
            rooms.adopt(room).await;
            if let Some(pos) = pos {
                rooms.ctx().db.stream.reached(pos).await;
            }
            Ok(())
        }
        Written::Stale => Err(Error::Busy),
    }
}

async fn add_create(rooms: &Rooms, plan: &mut Plan, create: Arc<Pdu>) -> Result<(), Error> {
    let mut nids = rooms.take_nids(2).await?;
    let (nid, snap) = (
        nids.next().unwrap_or_default(),
        nids.next().unwrap_or_default(),
    );
    let skey = rooms.ctx().db.ids.skey("m.room.create", "").await?;
    let accepted = Accepted {
        pdu: create.clone(),
        nid,
        known: false,
        flags: flag::LOCAL,
        snap: Some(0),
        prev: Vec::new(),
        auth: Vec::new(),
        out: None,
        seq: None,
        sticks: true,
    };
    plan.add(rooms, accepted).await?;
    plan.extend(nid, &create);
    plan.advance_state(rooms, snap, &[(skey.0, nid)]).await
}

async fn publish(
    rooms: &Rooms,
    room: &Room,
    creator: &UserId,
    request: &Request,
    alias: Option<&RoomAliasId>,
) -> Result<(), Error> {
    let creator = rooms.ctx().db.ids.user(creator).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    if let Some(alias) = alias {
        match storage::aliases::insert(&mut conn, alias, room.nid, creator).await {
            Err(error) if error.violates("room_alias_pkey") => {
                return Err(Error::AliasTaken(alias.to_string()));
            }
            done => done?,
        }
    }
    if request.visibility == Visibility::Public {
        storage::rooms::update_listed(&mut conn, room.nid, true).await?;
    }
    Ok(())
}

/// What follows the join of the creator, in the order of the specification.
fn drafts(
    creator: &UserId,
    request: &Request,
    (version, config): (&RoomVersion, &config::Rooms),
    alias: Option<&RoomAliasId>,
) -> Result<Vec<Draft>, Error> {
    let preset = preset(request);
    let mut drafts = vec![Draft::state_of(
        TimelineEventType::RoomPowerLevels,
        "",
        &power_levels(creator, request, version, &preset)?,
    )?];
    if let Some(alias) = alias {
        let content = json!({ "alias": alias });
        drafts.push(Draft::state_of(
            TimelineEventType::RoomCanonicalAlias,
            "",
            &content,
        )?);
    }
    let (join_rule, visibility, guests) = match &preset {
        // Guests are kept out where nothing is said.
        RoomPreset::PublicChat => ("public", "shared", None),
        _ => ("invite", "shared", Some("can_join")),
    };
    let mut given = initial_state(request)?;
    for (kind, content) in [
        (
            TimelineEventType::RoomJoinRules,
            json!({ "join_rule": join_rule }),
        ),
        (
            TimelineEventType::RoomHistoryVisibility,
            json!({ "history_visibility": visibility }),
        ),
        (
            TimelineEventType::RoomGuestAccess,
            json!({ "guest_access": guests }),
        ),
    ] {
        let is_default = kind == TimelineEventType::RoomGuestAccess && guests.is_none();
        // What the client gives takes the place of the preset's.
        if !is_default && !given.iter().any(|draft| draft.kind == kind) {
            drafts.push(Draft::state_of(kind, "", &content)?);
        }
    }
    for draft in &given {
        encryption::check(config, draft)?;
    }
    drafts.extend(encryption::draft(config, request, &preset, &given)?);
    drafts.append(&mut given);
    if let Some(name) = &request.name {
        drafts.push(Draft::state_of(
            TimelineEventType::RoomName,
            "",
            &json!({ "name": name }),
        )?);
    }
    if let Some(topic) = &request.topic {
        let content = json!({
            "topic": topic,
            "m.topic": { "m.text": [{ "body": topic }] },
        });
        drafts.push(Draft::state_of(TimelineEventType::RoomTopic, "", &content)?);
    }
    Ok(drafts)
}

fn preset(request: &Request) -> RoomPreset {
    request.preset.clone().unwrap_or(match request.visibility {
        Visibility::Public => RoomPreset::PublicChat,
        _ => RoomPreset::PrivateChat,
    })
}

fn initial_state(request: &Request) -> Result<Vec<Draft>, Error> {
    #[derive(serde::Deserialize)]
    struct Given {
        #[serde(rename = "type")]
        kind: TimelineEventType,
        #[serde(default)]
        state_key: String,
        content: Map<String, Value>,
    }
    request
        .initial_state
        .iter()
        .map(|raw| {
            let given: Given = serde_json::from_str(raw.json().get())
                .map_err(|error| Error::Invalid(format!("initial_state: {error}")))?;
            if given.kind == TimelineEventType::RoomCreate {
                return Err(Error::Invalid(
                    "initial_state may not hold m.room.create".to_owned(),
                ));
            }
            Ok(Draft::state_of(
                given.kind,
                &given.state_key,
                &given.content,
            )?)
        })
        .collect()
}

fn power_levels(
    creator: &UserId,
    request: &Request,
    version: &RoomVersion,
    preset: &RoomPreset,
) -> Result<Map<String, Value>, Error> {
    let privileged = version
        .rules
        .authorization
        .explicitly_privilege_room_creators;
    let mut users = Map::new();
    if !privileged {
        users.insert(creator.to_string(), json!(100));
        if *preset == RoomPreset::TrustedPrivateChat {
            for user in &request.invite {
                users.insert(user.to_string(), json!(100));
            }
        }
    }
    let content = json!({
        "ban": 50,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            // Above what any user can be given, so that creators alone can end a v12 room.
            "m.room.tombstone": if privileged { 150 } else { 100 },
        },
        "events_default": 0,
        "invite": if *preset == RoomPreset::PublicChat { 50 } else { 0 },
        "kick": 50,
        "notifications": { "room": 50 },
        "redact": 50,
        "state_default": 50,
        "users": users,
        "users_default": 0,
    });
    let Value::Object(mut content) = content else {
        return Ok(Map::new());
    };
    if let Some(raw) = &request.power_level_content_override {
        let given: Map<String, Value> = serde_json::from_str(raw.json().get())
            .map_err(|error| Error::Invalid(format!("power_level_content_override: {error}")))?;
        content.extend(given);
    }
    Ok(content)
}
