//! Spaces and rooms of peers, as they tell them, kept for a little while.

use std::{collections::HashSet, sync::Arc, time::Duration};

use moka::future::Cache;
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, ServerName, api::federation::space::get_hierarchy,
};
use serde_json::{Map, Value};

use super::{
    children::{self, CHILDREN_MAX, Child},
    summary::Summary,
};
use crate::{
    federation::body,
    rooms::{Error, Rooms},
};

/// How long an answer is kept: a client pages through a space meanwhile.
const KEPT: Duration = Duration::from_mins(1);
/// Bytes of answers in memory.
const KEPT_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one answer.
const ANSWER_MAX: usize = 4 << 20;
/// Time for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Servers asked for one room.
const ASKED_MAX: usize = 3;

/// What a peer tells of a room.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The room.
    pub(super) room: Summary,
    /// Its children, if it is a space.
    pub(super) children: Vec<Child>,
    /// What the peer tells of those of them that it knows.
    pub(super) told: Vec<Summary>,
    /// Those of them that, it says, nobody here can see.
    pub(super) inaccessible: Vec<OwnedRoomId>,
}

/// Server, room, whether only of suggested children is told.
type Question = (OwnedServerName, OwnedRoomId, bool);

/// Answers of peers. By server: what one says of a room of others does not count as what they say.
#[derive(Debug)]
pub(in super::super) struct Peers(Cache<Question, Arc<Answer>>);

impl Default for Peers {
    fn default() -> Self {
        let cache = Cache::builder()
            .max_capacity(KEPT_BYTES_MAX)
            .weigher(|_, answer: &Arc<Answer>| u32::try_from(answer.weight()).unwrap_or(u32::MAX))
            .time_to_live(KEPT);
        Self(cache.build())
    }
}

impl Answer {
    fn weight(&self) -> usize {
        let children = self.children.iter().map(|child| 2 * child.bytes + 300);
        let told = self.told.iter().map(Summary::weight);
        self.room.weight()
            + children.sum::<usize>()
            + told.sum::<usize>()
            + self.inaccessible.len() * 80
    }

    /// Reads an answer: it must be about the room, and tell of no rooms but its children.
    fn parse(body: &[u8], room_id: &RoomId) -> Option<Self> {
        let body: Map<String, Value> = serde_json::from_slice(body).ok()?;
        let room = body.get("room")?.as_object()?;
        let summary = Summary::from_peer(room, room_id)?;
        let children = if summary.is_space() {
            children::from_peer(room)
        } else {
            Vec::new()
        };
        let ids: HashSet<&RoomId> = children.iter().map(|child| &*child.room_id).collect();
        let list = |name: &str| {
            let list = body.get(name).and_then(Value::as_array);
            list.into_iter().flatten().take(CHILDREN_MAX)
        };
        let told = list("children").filter_map(|child| {
            let id = room_id_of(&child["room_id"]).filter(|id| ids.contains(id))?;
            Summary::from_peer(child.as_object()?, id)
        });
        let inaccessible = list("inaccessible_children")
            .filter_map(room_id_of)
            .filter(|id| ids.contains(id));
        Some(Self {
            told: told.collect(),
            inaccessible: inaccessible.map(ToOwned::to_owned).collect(),
            room: summary,
            children,
        })
    }
}

fn room_id_of(value: &Value) -> Option<&RoomId> {
    <&RoomId>::try_from(value.as_str()?).ok()
}

/// What the first of the servers tells that knows the room.
pub(super) async fn ask(
    rooms: &Rooms,
    room_id: &RoomId,
    via: &[OwnedServerName],
    suggested_only: bool,
) -> Option<Arc<Answer>> {
    let own = rooms.ctx().server_name();
    for server in via.iter().filter(|server| *server != own).take(ASKED_MAX) {
        let question = (server.clone(), room_id.to_owned(), suggested_only);
        let asking = fetch(rooms, server, room_id, suggested_only);
        match rooms.0.peers.0.try_get_with(question, asking).await {
            Ok(answer) => return Some(answer),
            Err(error) => tracing::debug!(%error, %server, %room_id, "a peer does not tell a room"),
        }
    }
    None
}

async fn fetch(
    rooms: &Rooms,
    server: &ServerName,
    room_id: &RoomId,
    suggested_only: bool,
) -> Result<Arc<Answer>, Error> {
    let mut request = get_hierarchy::v1::Request::new(room_id.to_owned());
    request.suggested_only = suggested_only;
    let remote = |error: &dyn std::fmt::Display| Error::Remote(error.to_string());
    let federation = &rooms.ctx().federation;
    let answer = federation.open(server, request, TIMEOUT).await;
    let answer = answer.map_err(|error| remote(&error))?;
    let body = body::read(answer, ANSWER_MAX).await;
    let body = body.map_err(|error| remote(&error))?;
    let answer = Answer::parse(&body, room_id);
    answer
        .map(Arc::new)
        .ok_or_else(|| remote(&"the answer is not about the room"))
}

#[cfg(test)]
mod tests {
    use ruma::room_id;
    use serde_json::json;

    use super::Answer;

    #[test]
    fn a_peer_tells_of_the_room_and_its_children_only() {
        let summary = |id: &str| json!({ "room_id": id, "num_joined_members": 1 });
        let mut room = summary("!s:x");
        room["room_type"] = json!("m.space");
        room["children_state"] = json!([{
            "type": "m.space.child", "state_key": "!c:x", "sender": "@a:x",
            "origin_server_ts": 1, "content": { "via": ["x"] },
        }, {
            "type": "m.space.child", "state_key": "!d:x", "sender": "@a:x",
            "origin_server_ts": 2, "content": { "via": ["x"] },
        }]);
        let mut body = json!({
            "room": room, "children": [summary("!c:x"), summary("!e:x"), 3],
            "inaccessible_children": ["!d:x", "!e:x", "?"],
        });
        let parse =
            |body: &serde_json::Value| Answer::parse(body.to_string().as_bytes(), room_id!("!s:x"));
        let answer = parse(&body).unwrap();
        assert_eq!(answer.children.len(), 2);
        assert_eq!(answer.told.len(), 1);
        assert_eq!(answer.told[0].room_id, "!c:x");
        assert_eq!(answer.inaccessible, ["!d:x"]);
        // Not a space: no children.
        body["room"].as_object_mut().unwrap().remove("room_type");
        assert!(parse(&body).unwrap().children.is_empty());
        body["room"]["room_id"] = json!("!other:x");
        assert!(parse(&body).is_none());
        assert!(parse(&json!([])).is_none());
    }
}
