//! What an honest server answers.

use serde_json::{Value, json};

use super::{
    Answer, Asked, Shared,
    event::{Event, canonical, now},
    room::Room,
};

fn list(events: &[Event]) -> Vec<Value> {
    events.iter().map(Event::json).collect()
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().into_iter().flatten();
    texts
        .filter_map(|text| text.as_str().map(ToOwned::to_owned))
        .collect()
}

impl Shared {
    /// The answer to a request from the rooms that are served.
    pub(super) fn honest(&self, route: &str, asked: &Asked) -> Answer {
        let first = asked.args.first().map_or("", String::as_str);
        let second = asked.args.get(1).map_or("", String::as_str);
        let room = || self.rooms.lock().unwrap().get(first).cloned();
        let found = match route {
            "server" => Some(self.key.document(now() + 86_400_000, &json!({}))),
            "version" => Some(json!({ "server": { "name": "Scripted", "version": "1" } })),
            "send" => Some(self.take(asked)),
            "invite" => Some(self.invited(asked)),
            "event" => self.find(first).map(|event| {
                json!({ "origin": self.key.server, "origin_server_ts": now(), "pdus": [event.json()] })
            }),
            "make_join" => room().map(|room| template(&room, second, "join")),
            "make_leave" => room().map(|room| template(&room, second, "leave")),
            "send_join" => room().map(|room| self.joined(&room, asked)),
            "send_leave" => room().map(|room| {
                room.insert(&Event::of(canonical(asked.body.clone()), &room.version));
                json!({})
            }),
            "event_auth" => room().and_then(|room| {
                let event = room.get(second)?;
                Some(json!({ "auth_chain": list(&room.auth_chain(&[event])) }))
            }),
            "state" | "state_ids" => room().and_then(|room| {
                let state = room.before(&asked.param("event_id"))?;
                let chain = room.auth_chain(&state);
                Some(if route == "state" {
                    json!({ "pdus": list(&state), "auth_chain": list(&chain) })
                } else {
                    json!({ "pdu_ids": ids(&state), "auth_chain_ids": ids(&chain) })
                })
            }),
            "get_missing_events" => room().map(|room| {
                let earliest = texts(&asked.body["earliest_events"]);
                let latest = texts(&asked.body["latest_events"]);
                let limit = asked.body["limit"].as_u64().unwrap_or(10);
                let limit = usize::try_from(limit).unwrap();
                json!({ "events": list(&room.between(&earliest, &latest, limit)) })
            }),
            "backfill" => room().map(|room| {
                let from = asked.params("v");
                let limit = asked.param("limit").parse().unwrap_or(10);
                let mut events = room.between(&[], &from, limit);
                events.extend(from.iter().filter_map(|id| room.get(id)));
                events.reverse();
                events.truncate(limit);
                json!({ "origin": self.key.server, "origin_server_ts": now(), "pdus": list(&events) })
            }),
            _ => None,
        };
        found.map_or_else(|| Answer::refused(404, "M_NOT_FOUND"), Answer::ok)
    }

    fn find(&self, id: &str) -> Option<Event> {
        let rooms = self.rooms.lock().unwrap();
        rooms.values().find_map(|room| room.get(id))
    }

    /// A transaction: events of rooms that are served become part of them.
    fn take(&self, asked: &Asked) -> Value {
        let mut results = serde_json::Map::new();
        for pdu in asked.body["pdus"].as_array().into_iter().flatten() {
            let rooms = self.rooms.lock().unwrap();
            let room = pdu["room_id"].as_str().and_then(|id| rooms.get(id));
            if let Some(room) = room {
                let event = Event::of(canonical(pdu.clone()), &room.version);
                results.insert(event.id.clone(), json!({}));
                if room.get(&event.id).is_none() {
                    room.insert(&event);
                }
            }
        }
        json!({ "pdus": results })
    }

    fn invited(&self, asked: &Asked) -> Value {
        let version = asked.body["room_version"].as_str().unwrap_or("10");
        let mut object = canonical(asked.body["event"].clone());
        self.key.sign_event(&mut object, version);
        json!({ "event": object })
    }

    fn joined(&self, room: &Room, asked: &Asked) -> Value {
        let event = Event::of(canonical(asked.body.clone()), &room.version);
        room.insert(&event);
        let state = room.before(&event.id).unwrap_or_default();
        let mut of = state.clone();
        of.push(event.clone());
        let chain = room.auth_chain(&of);
        let answer = json!({
            "origin": self.key.server,
            "event": event.json(),
            "state": list(&state),
            "auth_chain": list(&chain),
            "members_omitted": false,
        });
        let omits = *self.omits_members.lock().unwrap();
        if omits && asked.param("omit_members") == "true" {
            omitted(answer, &state, &chain, &event)
        } else {
            answer
        }
    }
}

/// The answer to `send_join` without members: those that authorize the rest are in the auth chain.
fn omitted(mut answer: Value, state: &[Event], chain: &[Event], join: &Event) -> Value {
    let (members, rest): (Vec<Event>, Vec<Event>) = state
        .iter()
        .cloned()
        .partition(|event| event.text("type") == "m.room.member");
    let joined = members
        .iter()
        .chain([join])
        .filter(|event| event.json()["content"]["membership"] == "join");
    let mut servers: Vec<String> = joined
        .filter_map(|event| Some(event.text("state_key").split_once(':')?.1.to_owned()))
        .collect();
    servers.sort();
    servers.dedup();
    let chain: Vec<Event> = chain
        .iter()
        .filter(|event| rest.iter().all(|other| other.id != event.id))
        .cloned()
        .collect();
    answer["state"] = json!(list(&rest));
    answer["auth_chain"] = json!(list(&chain));
    answer["members_omitted"] = json!(true);
    answer["servers_in_room"] = json!(servers);
    answer
}

fn template(room: &Room, user: &str, membership: &str) -> Value {
    let content = json!({ "membership": membership });
    let draft = room.draft(user, ("m.room.member", Some(user)), content);
    json!({ "room_version": room.version, "event": draft.object })
}
