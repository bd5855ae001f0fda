//! Rooms in the hands of operators.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    flows::freeing::{is_gone, rows},
    rig::{
        enc, eventually,
        operator::{Operator, call},
        server::{Folder, Server},
        tls::Tls,
        user::User,
    },
};

async fn named(user: &User, name: &str, public: bool) -> String {
    let visibility = if public { "public" } else { "private" };
    user.create_room(json!({ "name": name, "visibility": visibility, "preset": "public_chat" }))
        .await
}

/// A room with all that operators are shown.
async fn chronicle(alice: &User) -> String {
    alice
        .create_room(json!({
            "name": "Chronik", "preset": "private_chat", "room_alias_name": "chronik",
            "room_version": "10", "creation_content": { "m.federate": false, "type": "m.space" },
            "topic": "damals",
            "initial_state": [{
                "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" },
            }],
        }))
        .await
}

fn names(page: &Value) -> Vec<&str> {
    let rooms = page["rooms"].as_array().unwrap();
    rooms
        .iter()
        .filter_map(|room| room["name"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_all_rooms() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let a = named(&alice, "Amt", true).await;
    let b = named(&alice, "Bauhof", false).await;
    chronicle(&alice).await;
    bob.join(&b).await;

    let (status, body) = call(&operator.base, &alice.token, Method::GET, "/v1/rooms", None).await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    let all = operator.get("/v1/rooms").await;
    assert_eq!(names(&all), ["Amt", "Bauhof", "Chronik"], "{all}");
    assert_eq!(
        (&all["offset"], &all["total_rooms"]),
        (&json!(0), &json!(3))
    );
    let page = operator.get("/v1/rooms?order_by=name&dir=b&limit=2").await;
    assert_eq!(names(&page), ["Chronik", "Bauhof"]);
    assert_eq!(page["next_batch"], 2, "{page}");
    let page = operator.get("/v1/rooms?dir=b&limit=2&from=2").await;
    assert_eq!(names(&page), ["Amt"]);
    assert_eq!(
        (&page["prev_batch"], page.get("next_batch")),
        (&json!(0), None)
    );
    assert_eq!(
        names(&operator.get("/v1/rooms?order_by=joined_members").await)[0],
        "Bauhof"
    );
    for (filter, expected) in [
        ("search_term=hof", vec!["Bauhof"]),
        ("search_term=CHRO", vec!["Chronik"]),
        (&*format!("search_term={}", enc(&a)), vec!["Amt"]),
        ("search_term=nothing", vec![]),
        ("public_rooms=true", vec!["Amt"]),
        ("public_rooms=false", vec!["Bauhof", "Chronik"]),
        ("empty_rooms=true", vec![]),
        ("empty_rooms=false&order_by=size", vec!["Bauhof"]),
    ] {
        let page = operator.get(&format!("/v1/rooms?{filter}")).await;
        assert!(names(&page).starts_with(&expected), "{filter}: {page}");
        if !filter.contains("empty_rooms=false") {
            assert_eq!(page["total_rooms"], expected.len(), "{filter}: {page}");
        }
    }
    for bad in [
        "search_term=",
        "order_by=colour",
        "dir=up",
        "from=-1",
        "limit=x",
    ] {
        let (status, body) = operator
            .ask(Method::GET, &format!("/v1/rooms?{bad}"), None)
            .await;
        assert_eq!(
            (status, &body["errcode"]),
            (400, &json!("M_INVALID_PARAM")),
            "{bad}"
        );
    }
    // A change is seen at once.
    let rename = format!("/rooms/{}/state/m.room.name/", enc(&a));
    alice.put(&rename, json!({ "name": "Zentrale" })).await;
    assert_eq!(
        names(&operator.get("/v1/rooms").await),
        ["Bauhof", "Chronik", "Zentrale"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_look_into_rooms() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let b = named(&alice, "Bauhof", false).await;
    let c = chronicle(&alice).await;
    bob.join(&b).await;
    let shown = operator.get(&format!("/v1/rooms/{}", enc(&c))).await;
    for (key, value) in [
        ("room_id", json!(c)),
        ("name", json!("Chronik")),
        ("topic", json!("damals")),
        (
            "canonical_alias",
            json!(format!("#chronik:{}", server.name)),
        ),
        ("joined_members", json!(1)),
        ("joined_local_members", json!(1)),
        ("joined_local_devices", json!(1)),
        ("version", json!("10")),
        ("creator", json!(alice.id)),
        ("encryption", json!("m.megolm.v1.aes-sha2")),
        ("federatable", json!(false)),
        ("public", json!(false)),
        ("join_rules", json!("invite")),
        ("room_type", json!("m.space")),
        ("forgotten", json!(false)),
        ("tombstoned", json!(false)),
        ("replacement_room", json!(null)),
        ("avatar", json!(null)),
    ] {
        assert_eq!(shown[key], value, "{key} in {shown}");
    }
    let members = operator
        .get(&format!("/v1/rooms/{}/members", enc(&b)))
        .await;
    assert_eq!(members["total"], 2, "{members}");
    let state = operator.get(&format!("/v1/rooms/{}/state", enc(&b))).await;
    assert_eq!(state["state"].as_array().unwrap().len() as u64, {
        let shown = operator.get(&format!("/v1/rooms/{}", enc(&b))).await;
        shown["state_events"].as_u64().unwrap()
    });
    let path = format!("/v1/rooms/{}/state?type=m.room.member", enc(&b));
    let state = operator.get(&path).await;
    assert_eq!(state["state"].as_array().unwrap().len(), 2, "{state}");
    let (status, body) = operator
        .ask(Method::GET, "/v1/rooms/%21nothing%3Ahere", None)
        .await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_to_delete_has_to_make_sense() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let bob = server.user("bob").await;
    let room = bob.create_room(json!({})).await;
    let path = format!("/v1/rooms/{}", enc(&room));
    let (status, body) = operator.ask(Method::DELETE, &path, None).await;
    assert_eq!(
        (status, &body["errcode"]),
        (400, &json!("M_NOT_JSON")),
        "{body}"
    );
    let foreign = json!({ "new_room_user_id": "@x:elsewhere.example" });
    let (status, body) = operator.ask(Method::DELETE, &path, Some(foreign)).await;
    assert_eq!(
        (status, &body["errcode"]),
        (400, &json!("M_INVALID_PARAM")),
        "{body}"
    );
    let (status, body) = operator
        .ask(Method::DELETE, &path, Some(json!({ "block": 1 })))
        .await;
    assert_eq!(
        (status, &body["errcode"]),
        (400, &json!("M_BAD_JSON")),
        "{body}"
    );
    let (status, body) = call(
        &operator.base,
        &bob.token,
        Method::DELETE,
        &path,
        Some(json!({})),
    )
    .await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    bob.say(&room, "still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_room_is_replaced_and_its_users_are_told() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let alice = server.user("alice").await;
    let (mut bob, carol) = (server.user("bob").await, server.user("carol").await);
    let room = alice
        .create_room(json!({
            "preset": "public_chat", "room_alias_name": "bad", "invite": [carol.id],
        }))
        .await;
    bob.join(&room).await;
    alice.say(&room, "bad things").await;
    bob.sync(0).await;
    let path = format!("/v1/rooms/{}", enc(&room));
    let order = json!({
        "new_room_user_id": operator.id, "room_name": "Hinweis", "message": "It was bad.",
        "block": true, "purge": true,
    });
    let (status, done) = operator.ask(Method::DELETE, &path, Some(order)).await;
    assert_eq!(status, 200, "{done}");
    let mut kicked: Vec<&str> = done["kicked_users"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    kicked.sort_unstable();
    assert_eq!(kicked, [&alice.id, &bob.id, &carol.id]);
    assert_eq!(done["failed_to_kick_users"], json!([]));
    assert_eq!(
        done["local_aliases"],
        json!([format!("#bad:{}", server.name)])
    );
    let new = done["new_room_id"].as_str().unwrap().to_owned();
    let left = rows(&server, &room).await;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["user_room"], "{left:?}");

    let body = bob.sync(0).await;
    assert!(body["rooms"]["leave"].get(&room).is_some(), "told: {body}");
    bob.hears("It was bad.").await;
    let say = format!("/rooms/{}/send/m.room.message/x", enc(&new));
    let (status, _) = bob
        .put(&say, json!({ "msgtype": "m.text", "body": "but" }))
        .await;
    assert_eq!(status, 403, "may not speak there");
    let members = operator
        .get(&format!("/v1/rooms/{}/members", enc(&new)))
        .await;
    assert_eq!(
        members["total"], 3,
        "who was only invited is not moved: {members}"
    );
    let (status, body) = bob.post(&format!("/join/{}", enc(&room)), json!({})).await;
    assert_eq!(
        (status, &body["errcode"]),
        (403, &json!("M_FORBIDDEN")),
        "{body}"
    );
    for user in [&alice, &bob, &carol] {
        let (status, body) = user
            .post(&format!("/rooms/{}/forget", enc(&room)), json!({}))
            .await;
        assert_eq!(status, 200, "{body}");
    }
    is_gone(&server, &room).await;
    let (status, body) = operator.ask(Method::GET, &path, None).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_runs_in_the_background_and_can_be_watched() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let mut server = Server::with_tls(&tls).await;
    let peer = Server::with_tls(&tls).await;
    let operator = Operator::of(&server).await;
    let alice = server.user("alice").await;
    let mut bob = peer.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "shared" }))
        .await;
    bob.join(&format!("#shared:{}", server.name)).await;
    alice.say(&room, "hello").await;
    bob.hears("hello").await;
    let path = format!("/v2/rooms/{}", enc(&room));
    let (status, body) = operator
        .ask(Method::GET, &format!("{path}/delete_status"), None)
        .await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_NOT_FOUND")));
    let (status, body) = operator.ask(Method::DELETE, &path, Some(json!({}))).await;
    assert_eq!(status, 200, "{body}");
    let id = body["delete_id"].as_str().unwrap().to_owned();
    // What was ordered is done, also by the next process.
    server.kill();
    server.restart().await;
    let status = eventually("the deletion to end", async || {
        let status = operator.get(&format!("/v2/rooms/delete_status/{id}")).await;
        (status["status"] == "complete").then_some(status)
    })
    .await;
    assert_eq!(status["room_id"], room.as_str());
    assert_eq!(
        status["shutdown_room"]["failed_to_kick_users"],
        json!([]),
        "{status}"
    );
    assert_eq!(status["shutdown_room"]["new_room_id"], json!(null));
    let of_room = operator.get(&format!("{path}/delete_status")).await;
    assert_eq!(of_room["results"][0]["delete_id"], id.as_str(), "{of_room}");
    let alice_id = alice.id.clone();
    bob.wait_for("alice to leave", |event| {
        event["state_key"] == alice_id.as_str() && event["content"]["membership"] == "leave"
    })
    .await;
    eventually("all but alice's memory to go", async || {
        let left = rows(&server, &room).await;
        left.keys().all(|table| table == "user_room").then_some(())
    })
    .await;
    // Not blocked: the room can be entered again.
    let path = format!("/join/{}?via={}", enc(&room), enc(&peer.name));
    let (status, body) = alice.post(&path, json!({})).await;
    assert_eq!(status, 200, "{body}");
    bob.say(&room, "back").await;
    let history = eventually("bob to be heard", async || {
        let history = alice.history(&room).await;
        history.contains(&"back".to_owned()).then_some(history)
    })
    .await;
    assert!(history.contains(&"hello".to_owned()), "{history:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_enters_a_blocked_room() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with_tls(&tls).await;
    let peer = Server::with_tls(&tls).await;
    let operator = Operator::of(&server).await;
    let alice = server.user("alice").await;
    let bob = peer.user("bob").await;
    let room = bob
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "bobs" }))
        .await;
    let path = format!("/v1/rooms/{}/block", enc(&room));
    assert_eq!(operator.get(&path).await, json!({ "block": false }));
    let (status, body) = operator
        .ask(Method::PUT, &path, Some(json!({ "block": true })))
        .await;
    assert_eq!((status, &body), (200, &json!({ "block": true })));
    assert_eq!(
        operator.get(&path).await,
        json!({ "block": true, "user_id": operator.id })
    );
    let join = format!("/join/{}", enc(&format!("#bobs:{}", peer.name)));
    let (status, body) = alice.post(&join, json!({})).await;
    assert_eq!(
        (status, &body["errcode"]),
        (403, &json!("M_FORBIDDEN")),
        "{body}"
    );
    let invite = format!("/rooms/{}/invite", enc(&room));
    let (status, body) = bob.post(&invite, json!({ "user_id": alice.id })).await;
    assert_eq!(status, 403, "{body}");
    // One that nobody here has heard of can be blocked by deleting it.
    let unknown = "/v1/rooms/%21unknown%3Aelsewhere.example";
    let (status, body) = operator
        .ask(Method::DELETE, unknown, Some(json!({ "block": true })))
        .await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        operator.get(&format!("{unknown}/block")).await["block"],
        true
    );
    let (status, body) = operator
        .ask(Method::PUT, &path, Some(json!({ "block": "no" })))
        .await;
    assert_eq!(
        (status, &body["errcode"]),
        (400, &json!("M_BAD_JSON")),
        "{body}"
    );
    operator
        .ask(Method::PUT, &path, Some(json!({ "block": false })))
        .await;
    let (status, body) = alice.post(&join, json!({})).await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = operator
        .ask(Method::DELETE, "/v1/rooms/nonsense", Some(json!({})))
        .await;
    assert_eq!(
        (status, &body["errcode"]),
        (400, &json!("M_INVALID_PARAM")),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_room_can_be_deleted_by_force() {
    let mut server = Server::start().await;
    let operator = Operator::of(&server).await;
    let mut alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.sync(0).await;
    // Nobody can leave a room whose first event is lost.
    let mut conn = server.database().await;
    sqlx::query(
        "DELETE FROM state_json WHERE event_nid IN (
           SELECT event_nid FROM event e JOIN room r USING (room_nid)
           WHERE r.room_id = $1 AND e.type_nid = 2)",
    )
    .bind(&room)
    .execute(&mut conn)
    .await
    .unwrap();
    drop(conn);
    server.kill();
    server.restart().await;
    let path = format!("/v1/rooms/{}", enc(&room));
    let (status, body) = operator.ask(Method::DELETE, &path, Some(json!({}))).await;
    assert_eq!(
        (status, &body["error"]),
        (400, &json!("Users are still joined to this room")),
        "{body}"
    );
    let force = json!({ "force_purge": true });
    let (status, body) = operator.ask(Method::DELETE, &path, Some(force)).await;
    assert_eq!(
        (status, &body["failed_to_kick_users"]),
        (200, &json!([alice.id])),
        "{body}"
    );
    let left = rows(&server, &room).await;
    assert_eq!(left.keys().collect::<Vec<_>>(), ["user_room"], "{left:?}");
    let body = alice.sync(0).await;
    assert!(body["rooms"]["leave"].get(&room).is_some(), "told: {body}");
}
