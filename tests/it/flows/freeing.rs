//! Rooms that nobody remembers: their rows go, whatever comes in between.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::json;
use sqlx::PgConnection;

use crate::{
    client::threads,
    federation::rooms::two_servers,
    rig::{enc, eventually, server::Server, user::User},
};

async fn count(conn: &mut PgConnection, from: &str, room: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {from}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(room)
        .fetch_one(conn)
        .await
        .unwrap()
}

/// Rows of a room by table; of every table that names rooms, whoever made it and when.
pub(crate) async fn rows(server: &Server, room: &str) -> BTreeMap<String, i64> {
    let mut conn = server.database().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.columns
         WHERE column_name = 'room_nid' AND table_schema = 'public'
           AND table_name NOT IN ('room', 'stream_log')",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let mut found = BTreeMap::new();
    for table in tables {
        let from =
            format!("{table} WHERE room_nid = (SELECT room_nid FROM room WHERE room_id = $1)");
        found.insert(table, count(&mut conn, &from, room).await);
    }
    for table in ["event_json", "state_json"] {
        let from = format!(
            "{table} j WHERE $1 <> '' AND NOT EXISTS (
               SELECT 1 FROM event e WHERE e.event_nid = j.event_nid)"
        );
        found.insert(table.to_owned(), count(&mut conn, &from, room).await);
    }
    found.retain(|_, count| *count > 0);
    found
}

pub(crate) async fn is_gone(server: &Server, room: &str) {
    eventually("the rows of a room to go", async || {
        rows(server, room).await.is_empty().then_some(())
    })
    .await;
}

async fn leave(user: &User, room: &str, and_forget: bool) {
    for step in ["leave", "forget"].iter().take(1 + usize::from(and_forget)) {
        patiently(user, &format!("/rooms/{}/{step}", enc(room)), None).await;
    }
}

/// Asks again while the server says that it cannot just now: POST, or PUT with a body.
async fn patiently(user: &User, path: &str, body: Option<serde_json::Value>) {
    eventually(path, async || {
        let (status, answer) = match &body {
            Some(body) => user.put(path, body.clone()).await,
            None => user.post(path, json!({})).await,
        };
        assert!([200, 503].contains(&status), "{path}: {status} {answer}");
        (status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_everybody_has_forgotten_leaves_no_row() {
    let server = Server::with(threads::CONFIG, None).await;
    let (mut alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice
        .create_room(json!({
            "preset": "public_chat", "room_alias_name": "gone", "visibility": "public",
        }))
        .await;
    let kept = alice.create_room(json!({})).await;
    alice.say(&kept, "stays").await;
    bob.join(&room).await;
    let said = alice.say(&room, "secret").await;
    let named = json!({
        "msgtype": "m.text", "body": "bob!", "m.mentions": { "user_ids": [bob.id] },
    });
    let path = format!(
        "/rooms/{}/send/m.room.message/mention?org.matrix.msc4354.sticky_duration_ms=600000",
        enc(&room)
    );
    assert_eq!(alice.put(&path, named).await.0, 200);
    let read = format!("/rooms/{}/receipt/m.read/{said}", enc(&room));
    assert_eq!(bob.post(&read, json!({})).await.0, 200);
    let tag = format!("/user/{}/rooms/{}/tags/u.work", enc(&bob.id), enc(&room));
    assert_eq!(bob.put(&tag, json!({ "order": 0.5 })).await.0, 200);
    // Read by bob, so that a row says how far.
    let inside = json!({
        "msgtype": "m.text", "body": "in a thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": said },
    });
    let path = format!("/rooms/{}/send/m.room.message/thread", enc(&room));
    let (_, body) = alice.put(&path, inside).await;
    let answer = body["event_id"].as_str().unwrap();
    let path = format!("/rooms/{}/receipt/m.read/{answer}", enc(&room));
    assert_eq!(bob.post(&path, json!({ "thread_id": said })).await.0, 200);
    threads::subscribe(&bob, Method::PUT, (&room, &said), json!({})).await;
    let redact = format!("/rooms/{}/redact/{said}/r1", enc(&room));
    let with = json!({ "with_rel_types": ["m.reference"] });
    assert_eq!(alice.put(&redact, with).await.0, 200);
    alice.sync(0).await;

    leave(&alice, &room, true).await;
    leave(&bob, &room, false).await;
    let left = rows(&server, &room).await;
    assert!(left["event"] > 0, "bob has not forgotten it");
    assert!(
        left["thread_sub"] > 0 && left["sticky_event"] > 0,
        "{left:?}"
    );
    let history = format!("/rooms/{}/messages?dir=b", enc(&room));
    assert_eq!(bob.get(&history).await.0, 200, "what was said to bob");
    leave(&bob, &room, true).await;
    is_gone(&server, &room).await;

    assert_eq!(bob.get(&history).await.0, 403);
    let alias = enc(&format!("#gone:{}", server.name));
    assert_eq!(
        bob.get(&format!("/directory/room/{alias}")).await.0,
        404,
        "its alias is free"
    );
    let (_, listed) = bob.get("/publicRooms").await;
    assert_eq!(listed["chunk"], json!([]), "{listed}");
    let body = alice.sync(0).await;
    assert!(body["rooms"]["join"].get(&room).is_none(), "{body}");
    assert_eq!(alice.history(&kept).await, ["stays"]);
    let (_, capabilities) = bob.get("/capabilities").await;
    assert_eq!(
        capabilities["capabilities"]["m.forget_forced_upon_leave"]["enabled"],
        json!(false),
        "leaving is not forgetting: {capabilities}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rooms_of_a_closed_account_go_with_it() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.say(&room, "for nobody").await;
    let auth = json!({
        "auth": {
            "type": "m.login.password", "password": "password of alice",
            "identifier": { "type": "m.id.user", "user": "alice" },
        },
    });
    let (status, body) = alice.post("/account/deactivate", auth).await;
    assert_eq!(status, 200, "{body}");
    is_gone(&server, &room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freed_room_can_be_entered_again() {
    let (_folder, mut one, mut other) = two_servers().await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "again" }))
        .await;
    let alias = format!("#again:{}", one.name);
    bob.join(&alias).await;
    bob.say(&room, "first stay").await;
    alice.hears("first stay").await;
    leave(&bob, &room, true).await;
    is_gone(&other, &room).await;

    // Who comes while the rows are going waits, or is told to try again.
    bob.join(&alias).await;
    bob.say(&room, "second stay").await;
    alice.hears("second stay").await;
    let history = bob.history(&room).await;
    assert!(history.contains(&"first stay".to_owned()), "{history:?}");
    for round in 0..5 {
        leave(&bob, &room, true).await;
        patiently(&bob, &format!("/join/{}", enc(&alias)), None).await;
        let text = format!("stay {round}");
        let path = format!("/rooms/{}/send/m.room.message/stay{round}", enc(&room));
        let message = json!({ "msgtype": "m.text", "body": text });
        patiently(&bob, &path, Some(message)).await;
        alice.hears(&text).await;
        alice.say(&room, &format!("heard {text}")).await;
        bob.hears(&format!("heard {text}")).await;
    }

    // A peer that is away gets to know that bob left, although nothing else of the room is there.
    one.kill();
    leave(&bob, &room, true).await;
    let owed: BTreeMap<String, i64> = eventually("all but what is owed to go", async || {
        let found = rows(&other, &room).await;
        (!found.contains_key("event") && !found.contains_key("user_room")).then_some(found)
    })
    .await;
    let tables: Vec<&String> = owed.keys().collect();
    assert_eq!(
        tables,
        ["fed_outbox", "room_purge", "state_json"],
        "{owed:?}"
    );
    other.kill();
    other.restart().await;
    one.restart().await;
    let bob_id = bob.id.clone();
    alice
        .wait_for("bob to leave", |event| {
            event["state_key"] == bob_id.as_str() && event["content"]["membership"] == "leave"
        })
        .await;
    is_gone(&other, &room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_a_crash_cut_off_goes_on() {
    let (_folder, one, mut other) = two_servers().await;
    let mut alice = one.user("alice").await;
    let bob = other.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "crash" }))
        .await;
    let alias = format!("#crash:{}", one.name);
    bob.join(&alias).await;
    let untouched = bob.create_room(json!({})).await;
    bob.say(&untouched, "mine").await;
    // What a deletion has done when the power goes: the head is gone, half of the rest as well.
    let cut = "WITH r AS (SELECT room_nid FROM room WHERE room_id = $1),
           h AS (DELETE FROM room_head WHERE room_nid IN (SELECT room_nid FROM r)),
           u AS (UPDATE user_room SET membership = 3, forgotten = true
                 WHERE room_nid IN (SELECT room_nid FROM r)),
           e AS (DELETE FROM auth_edge WHERE room_nid IN (SELECT room_nid FROM r))
         INSERT INTO room_purge (room_nid, stage, forced, since_ts)
         SELECT room_nid, $2::int, false, 0 FROM r";
    let mut conn = other.database().await;
    sqlx::query(cut)
        .bind(&room)
        .bind(1)
        .execute(&mut conn)
        .await
        .unwrap();
    // One that is only wanted is given up where somebody is in the room.
    let wanted = "INSERT INTO room_purge (room_nid, stage, forced, since_ts)
         SELECT room_nid, 0, false, 0 FROM room WHERE room_id = $1";
    sqlx::query(wanted)
        .bind(&untouched)
        .execute(&mut conn)
        .await
        .unwrap();
    drop(conn);
    other.kill();
    other.restart().await;
    // Asks to be let in at once: waits for the deletion, and is in a whole room then.
    bob.join(&alias).await;
    bob.say(&room, "here again").await;
    alice.hears("here again").await;
    alice.say(&room, "welcome").await;
    eventually("no deletion to be left", async || {
        let mut conn = other.database().await;
        (count(&mut conn, "room_purge WHERE $1 <> ''", "any").await == 0).then_some(())
    })
    .await;
    assert_eq!(bob.history(&untouched).await, ["mine"]);
    let (status, members) = bob
        .get(&format!("/rooms/{}/joined_members", enc(&room)))
        .await;
    assert_eq!(status, 200);
    assert_eq!(members["joined"].as_object().unwrap().len(), 2, "{members}");
}
