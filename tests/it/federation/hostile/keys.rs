//! Keys that are not good, and peers that lie about keys.

use serde_json::json;

use super::Stage;
use crate::rig::{
    scripted::{
        Answer, Scripted,
        calls::x_matrix,
        event::{Key, now},
        server_and_peer,
    },
    server::{Folder, Server},
    tls::Tls,
};

const DAY_MS: i64 = 86_400_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_signs_the_past_only() {
    let mut stage = Stage::new("11").await;
    let old = Key::new(&stage.peer.name, "old");
    let expired = now() - DAY_MS;
    let list = json!({ old.id(): { "key": old.public(), "expired_ts": expired } });
    let document = stage.peer.key.document(now() + DAY_MS, &list);
    stage.peer.route_to("server", Answer::ok(document));
    let at = |ts: i64| {
        let draft = stage.room.draft_message(&stage.bob, "by the old key");
        draft.with("origin_server_ts", json!(ts)).sign(&old)
    };
    stage
        .is_taken("what it signed in its time", &at(expired - 1))
        .await;
    stage
        .is_dropped("what it signed after its time", &at(expired + 1))
        .await;
    // Room version 4 and before do not ask when; that is why requests must.
    let path = "/_matrix/federation/v1/event/$x";
    let header = x_matrix(&old, &stage.server.name, ("GET", path), None);
    let call = stage
        .peer
        .call_with(&stage.server, ("GET", path), &header, None);
    let (status, body) = call.await;
    assert_eq!(status, 401, "a request signed with an old key: {body}");
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_document_that_ran_out_signs_nothing_new() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let document = peer.key.document(now() - DAY_MS, &json!({}));
    peer.route_to("server", Answer::ok(document));
    let (status, body) = peer
        .call(&server, "GET", "/_matrix/federation/v1/event/$x", None)
        .await;
    assert_eq!(status, 401, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_out_keys_of_another_server() {
    let mut stage = Stage::new("11").await;
    let liar = Scripted::start(&stage.tls).await;
    let eve = liar.user("eve");
    // Its key as that of the honest peer, and as its own; signed by whomever it may.
    let as_peer = Key::new(&stage.peer.name, "liar");
    for document in [
        as_peer.document(now() + DAY_MS, &json!({})),
        {
            let mut document = liar.key.document(now() + DAY_MS, &json!({}));
            document["server_name"] = json!(stage.peer.name);
            document
        },
        {
            let mut document = as_peer.document(now() + DAY_MS, &json!({}));
            document["server_name"] = json!(liar.name);
            document
        },
        json!({ "server_keys": [as_peer.document(now() + DAY_MS, &json!({}))] }),
        json!({}),
    ] {
        liar.route_to("server", Answer::ok(document));
        let path = "/_matrix/federation/v1/event/$x";
        let header = x_matrix(&liar.key, &stage.server.name, ("GET", path), None);
        let call = liar.call_with(&stage.server, ("GET", path), &header, None);
        let (status, body) = call.await;
        assert_eq!(status, 401, "{body}");
        // For the honest peer its key counts for nothing.
        let header = x_matrix(&as_peer, &stage.server.name, ("GET", path), None);
        let call = liar.call_with(&stage.server, ("GET", path), &header, None);
        assert_eq!(call.await.0, 401);
        let draft = stage.room.draft_message(&stage.bob, "by the liar");
        stage
            .is_dropped("the liar's event", &draft.sign(&as_peer))
            .await;
    }
    assert!(stage.peer.user("eve") != eve);
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_document_without_end_is_not_read_to_the_end() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with_tls(&tls).await;
    let before = server.memory("VmHWM");
    for (first, again) in [
        ("{\"server_name\":\"".to_owned(), "x".repeat(65_536)),
        (
            "{\"verify_keys\":{".to_owned(),
            "\"ed25519:a\":{},".repeat(4_096),
        ),
    ] {
        let peer = Scripted::start(&tls).await;
        peer.route_to("server", Answer::Endless(first, again));
        let call = peer.call(&server, "GET", "/_matrix/federation/v1/event/$x", None);
        assert_eq!(call.await.0, 401);
        // Buffers of the connection come on top of what is read.
        assert!(peer.streamed() < 16 << 20, "{} bytes", peer.streamed());
    }
    let grown = server.memory("VmHWM").saturating_sub(before);
    assert!(grown < 50 << 10, "{grown} KiB more");
    assert!(server.is_well().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_by_users_of_many_dead_servers_do_not_stop_the_room() {
    let mut stage = Stage::new("11").await;
    let events: Vec<_> = (0..50)
        .map(|i| {
            let dead = Key::new(&format!("localhost:{}", 1 + i), "a");
            let sender = format!("@x:{}", dead.server);
            let draft = stage.room.draft_message(&stage.bob, "of the dead");
            draft.with("sender", json!(sender)).sign(&dead)
        })
        .collect();
    let all: Vec<_> = events.iter().collect();
    let results = stage.peer.send(&stage.server, &all).await;
    for event in events {
        assert_ne!(results[&event.id], json!({}));
    }
    stage.goes_on().await;
}
