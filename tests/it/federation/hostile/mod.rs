//! A peer that means harm: whatever it does, the honest go on.

mod answers;
mod asking;
mod bugs;
mod events;
mod graph;
mod joins;
mod keys;

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::rig::{
    enc, eventually,
    scripted::{Scripted, event::Event, room::Room, server_and_peer},
    server::{Folder, Server},
    tls::Tls,
    user::User,
};

static TEXTS: AtomicU32 = AtomicU32::new(0);

/// A server of ours, a scripted peer, and a room of the peer's that alice of ours is in.
struct Stage {
    server: Server,
    peer: Scripted,
    alice: User,
    /// An honest user of the peer.
    bob: String,
    /// Its evil user, who is in the room, too.
    mallory: String,
    room: Room,
    /// Ends of the room when alice came in.
    calm: Vec<String>,
    tls: Tls,
    _folder: Folder,
}

impl Stage {
    async fn new(version: &str) -> Self {
        let (folder, tls, server, peer) = server_and_peer().await;
        let alice = server.user("alice").await;
        let (bob, mallory) = (peer.user("bob"), peer.user("mallory"));
        let room = peer.room(version, &bob);
        room.member(&mallory, "join");
        alice.join_via(&room.id, &peer.name).await;
        let calm = room.ends();
        Self {
            server,
            peer,
            alice,
            bob,
            mallory,
            room,
            calm,
            tls,
            _folder: folder,
        }
    }

    /// The server is well, and the honest hear each other in the room.
    async fn goes_on(&mut self) {
        let room = self.room.clone();
        self.goes_on_in(&room).await;
    }

    async fn goes_on_in(&mut self, room: &Room) {
        assert!(self.server.is_well().await, "{}", self.server.log());
        let number = TEXTS.fetch_add(1, Ordering::Relaxed);
        let text = format!("bob goes on {number}");
        let event = room.message(&self.bob, &text);
        let results = self.peer.send(&self.server, &[&event]).await;
        assert_eq!(results[&event.id], json!({}), "{results}");
        self.alice.hears(&text).await;
        let text = format!("alice goes on {number}");
        self.alice.say(&room.id, &text).await;
        self.peer.hears(&text).await;
        assert!(
            !self.server.log().contains("panic"),
            "{}",
            self.server.log()
        );
    }

    /// Sends one event in a transaction; what the server says about it.
    async fn send(&self, event: &Event) -> Value {
        let results = self.peer.send(&self.server, &[event]).await;
        results[&event.id].clone()
    }

    /// The event as alice sees it; `None`: she does not.
    async fn seen(&self, room: &Room, event: &Event) -> Option<Value> {
        let path = format!("/rooms/{}/event/{}", enc(&room.id), enc(&event.id));
        let (status, body) = self.alice.get(&path).await;
        (status == 200).then_some(body)
    }

    /// Sends an event that must not be taken: refused, and nobody sees it.
    async fn is_dropped(&self, what: &str, event: &Event) {
        let result = self.send(event).await;
        assert_ne!(result, json!({}), "{what} was taken");
        let seen = self.seen(&self.room, event).await;
        assert_eq!(seen, None, "{what} is seen");
    }

    /// Sends an event that must be rejected, or given up: kept perhaps, and nobody sees it.
    async fn is_rejected(&self, what: &str, event: &Event) {
        self.send(event).await;
        self.settles().await;
        let seen = self.seen(&self.room, event).await;
        assert_eq!(seen, None, "{what} is seen");
    }

    /// Sends a join that must be refused.
    async fn join_is_refused(&self, what: &str, room: &str, join: &Event) {
        let path = format!(
            "/_matrix/federation/v2/send_join/{}/{}",
            enc(room),
            enc(&join.id)
        );
        let call = self
            .peer
            .call(&self.server, "PUT", &path, Some(join.json()));
        let (status, answer) = call.await;
        assert!((400..500).contains(&status), "{what}: {status} {answer}");
    }

    /// Waits until the server is done with all that the peer sent in the room: events that have to
    /// wait for others are taken in order of arrival, so a harmless one comes last.
    async fn settles(&self) {
        let content = json!({ "msgtype": "m.text", "body": "settled" });
        let kind = ("m.room.message", None);
        let draft = self.room.draft_on(&self.calm, &self.bob, kind, content);
        let last = self.room.forge(draft);
        let ends = self.room.ends();
        self.room.insert(&last);
        self.room.set_ends(&ends);
        self.send(&last).await;
        eventually("what the peer sent is dealt with", async || {
            self.seen(&self.room, &last).await
        })
        .await;
    }

    /// Sends an event that is good.
    async fn is_taken(&self, what: &str, event: &Event) -> Value {
        let result = self.send(event).await;
        assert_eq!(result, json!({}), "{what}");
        eventually(what, async || self.seen(&self.room, event).await).await
    }
}
