//! Requests of the peer to a server of ours.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{
    Scripted,
    event::{Draft, Event, Key, canonical},
    room::Room,
};
use crate::rig::{enc, http::Ask as _, server::Server};

static TXNS: AtomicU32 = AtomicU32::new(0);

/// The header that signs a request.
pub(crate) fn x_matrix(
    key: &Key,
    destination: &str,
    (method, uri): (&str, &str),
    body: Option<&str>,
) -> String {
    let mut object = json!({
        "method": method, "uri": uri, "origin": key.server, "destination": destination,
    });
    if let Some(body) = body {
        object["content"] = serde_json::from_str(body).unwrap();
    }
    let signed = serde_json::to_value(key.sign(object)).unwrap();
    let signature = signed["signatures"][&key.server][key.id()].as_str();
    format!(
        "X-Matrix origin=\"{}\",destination=\"{destination}\",key=\"{}\",sig=\"{}\"",
        key.server,
        key.id(),
        signature.unwrap()
    )
}

impl Scripted {
    /// Status and body of a signed request; the path begins with `/_matrix`.
    pub(crate) async fn call(
        &self,
        server: &Server,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let body = body.map(|body| body.to_string());
        let header = x_matrix(&self.key, &server.name, (method, path), body.as_deref());
        self.call_with(server, (method, path), &header, body).await
    }

    /// The same with a given signature and any bytes.
    pub(crate) async fn call_with(
        &self,
        server: &Server,
        (method, path): (&str, &str),
        authorization: &str,
        body: Option<String>,
    ) -> (u16, Value) {
        let mut request = self
            .http
            .request(method.parse().unwrap(), server.url(path))
            .header("Authorization", authorization);
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.ask().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// Sends a transaction of a given id.
    pub(crate) async fn transaction(
        &self,
        server: &Server,
        txn: &str,
        (pdus, edus): (&[Value], &[Value]),
    ) -> (u16, Value) {
        let path = format!("/_matrix/federation/v1/send/{}", enc(txn));
        let body = json!({
            "origin": self.name, "origin_server_ts": super::event::now(), "pdus": pdus, "edus": edus,
        });
        self.call(server, "PUT", &path, Some(body)).await
    }

    /// Sends events in a transaction of their own; returns the result of each by its id.
    pub(crate) async fn send(&self, server: &Server, events: &[&Event]) -> Value {
        let txn = format!("scripted{}", TXNS.fetch_add(1, Ordering::Relaxed));
        let pdus: Vec<Value> = events.iter().map(|event| event.json()).collect();
        let (status, body) = self.transaction(server, &txn, (&pdus, &[])).await;
        assert_eq!(status, 200, "{body}");
        body["pdus"].clone()
    }

    /// A template for one of our users' membership: version and event.
    pub(crate) async fn make(
        &self,
        server: &Server,
        membership: &str,
        room_id: &str,
        user: &str,
    ) -> Draft {
        let versions = "?ver=1&ver=10&ver=11&ver=12";
        let path = format!(
            "/_matrix/federation/v1/make_{membership}/{}/{}{versions}",
            enc(room_id),
            enc(user)
        );
        let (status, body) = self.call(server, "GET", &path, None).await;
        assert_eq!(status, 200, "{body}");
        Draft {
            version: body["room_version"].as_str().unwrap().to_owned(),
            object: canonical(body["event"].clone()),
        }
    }

    /// Has a user of this peer join a room of a server; the room is served from then on.
    pub(crate) async fn join(&self, server: &Server, room_id: &str, user: &str) -> Room {
        let (version, join, body) = self.send_join(server, room_id, user, "").await;
        let events = |list: &str| -> Vec<Event> {
            let list = body[list].as_array().unwrap().iter();
            list.map(|event| Event::of(canonical(event.clone()), &version))
                .collect()
        };
        let room = Room::empty(&self.key, &version, room_id);
        for event in events("auth_chain") {
            room.outlier(&event);
        }
        room.insert_with_state(&join, &events("state"));
        self.host(&room);
        room
    }

    /// Has a user of this peer join a room of a server, of which the peer keeps nothing.
    pub(crate) async fn enter(&self, server: &Server, room_id: &str, user: &str) {
        self.send_join(server, room_id, user, "?omit_members=true")
            .await;
    }

    /// Version of the room, the join, and what was answered.
    async fn send_join(
        &self,
        server: &Server,
        room_id: &str,
        user: &str,
        query: &str,
    ) -> (String, Event, Value) {
        let draft = self.make(server, "join", room_id, user).await;
        let version = draft.version.clone();
        let join = draft.sign(&self.key);
        let path = format!(
            "/_matrix/federation/v2/send_join/{}/{}{query}",
            enc(room_id),
            enc(&join.id)
        );
        let (status, body) = self.call(server, "PUT", &path, Some(join.json())).await;
        assert_eq!(status, 200, "{body}");
        (version, join, body)
    }

    /// Invites a user of a server to a room of this peer, with the event in its graph.
    pub(crate) async fn invite(&self, server: &Server, room: &Room, sender: &str, user: &str) {
        let content = json!({ "membership": "invite" });
        let draft = room.draft(sender, ("m.room.member", Some(user)), content);
        let invite = room.forge(draft);
        let path = format!(
            "/_matrix/federation/v2/invite/{}/{}",
            enc(&room.id),
            enc(&invite.id)
        );
        let preview: Vec<Value> = room.current().iter().map(Event::json).collect();
        let body = json!({
            "event": invite.json(), "room_version": room.version, "invite_room_state": preview,
        });
        let (status, body) = self.call(server, "PUT", &path, Some(body)).await;
        assert_eq!(status, 200, "{body}");
        room.insert(&Event::of(canonical(body["event"].clone()), &room.version));
    }
}
