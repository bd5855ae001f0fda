//! What goes along when a room is upgraded, and who follows.

use serde_json::{Value, json};

use crate::{
    federation::rooms::two_servers,
    rig::{enc, eventually, server::Server, user::User},
};

async fn state(user: &User, room: &str, kind: &str, key: &str) -> Value {
    let path = format!("/rooms/{}/state/{kind}/{}", enc(room), enc(key));
    let (status, body) = user.get(&path).await;
    if status == 200 { body } else { Value::Null }
}

async fn set(user: &User, room: &str, kind: &str, key: &str, content: Value) {
    let path = format!("/rooms/{}/state/{kind}/{}", enc(room), enc(key));
    let (status, body) = user.put(&path, content).await;
    assert_eq!(status, 200, "{kind}: {body}");
}

async fn upgrade(user: &User, room: &str, version: &str, creators: &[&str]) -> String {
    let mut wish = json!({ "new_version": version });
    if !creators.is_empty() {
        wish["additional_creators"] = json!(creators);
    }
    let (status, body) = user
        .post(&format!("/rooms/{}/upgrade", enc(room)), wish)
        .await;
    assert_eq!(status, 200, "{body}");
    body["replacement_room"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_and_levels_go_along_between_all_kinds_of_versions() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (carol, eve) = (server.user("carol").await, server.user("eve").await);
    for (from, to) in [
        ("9", "11"),
        ("11", "12"),
        ("12", "12"),
        ("12", "11"),
        ("12", "5"),
    ] {
        let room = alice
            .create_room(json!({ "room_version": from, "preset": "public_chat" }))
            .await;
        bob.join(&room).await;
        carol.join(&room).await;
        let ban = json!({ "user_id": eve.id, "reason": "rude" });
        let (status, body) = alice.post(&format!("/rooms/{}/ban", enc(&room)), ban).await;
        assert_eq!(status, 200, "{body}");
        let mut levels = state(&alice, &room, "m.room.power_levels", "").await;
        levels["users"][&bob.id] = json!(100);
        // More than bob has, who will do it nevertheless.
        levels["events"]["m.room.topic"] = json!(100);
        levels["events"]["m.room.tombstone"] = json!(90);
        levels["users"][&carol.id] = json!(90);
        set(&alice, &room, "m.room.power_levels", "", levels).await;
        set(&alice, &room, "m.room.topic", "", json!({ "topic": "T" })).await;
        let creators: &[&str] = if to == "12" { &[&bob.id] } else { &[] };
        let new = upgrade(&carol, &room, to, creators).await;

        let create = state(&carol, &new, "m.room.create", "").await;
        let named = &create["predecessor"];
        assert_eq!(named["room_id"], room.as_str(), "{create}");
        assert_eq!(named.get("event_id").is_some(), to != "12", "{create}");
        let banned = state(&carol, &new, "m.room.member", &eve.id).await;
        assert_eq!(
            (&banned["membership"], &banned["reason"]),
            (&json!("ban"), &json!("rude")),
            "{from} to {to}"
        );
        assert_eq!(state(&carol, &new, "m.room.topic", "").await["topic"], "T");
        let levels = state(&carol, &new, "m.room.power_levels", "").await;
        let users = &levels["users"];
        if to == "12" {
            assert_eq!(create["additional_creators"], json!([bob.id]));
            assert!(users.get(&bob.id).is_none() && users.get(&carol.id).is_none());
            assert_eq!(levels["events"]["m.room.tombstone"], 150, "{levels}");
        } else {
            assert_eq!(users[&carol.id], 90, "{from} to {to}: {levels}");
            assert_eq!(users[&alice.id], 100, "{from} to {to}: {levels}");
            assert_eq!(levels["events"]["m.room.tombstone"], 90, "{levels}");
        }
        let (status, body) = eve.post(&format!("/join/{}", enc(&new)), json!({})).await;
        assert_eq!(
            (status, &body["errcode"]),
            (403, &json!("M_FORBIDDEN")),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spaces_and_doors_name_the_new_room() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let space = json!({ "creation_content": { "type": "m.space" }, "preset": "public_chat" });
    let house = alice.create_room(space.clone()).await;
    let foreign = bob.create_room(space).await;
    alice.join(&foreign).await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_version": "10" }))
        .await;
    let link = json!({ "via": ["gone.example"], "order": "a", "suggested": true });
    set(&alice, &house, "m.space.child", &room, link.clone()).await;
    set(&bob, &foreign, "m.space.child", &room, link).await;
    let up = json!({ "via": [server.name], "canonical": true });
    set(&alice, &room, "m.space.parent", &house, up.clone()).await;
    bob.join(&room).await;
    let cellar = alice
        .create_room(json!({
            "preset": "private_chat", "room_version": "10",
            "initial_state": [{ "type": "m.room.join_rules", "content": {
                "join_rule": "restricted",
                "allow": [{ "type": "m.room_membership", "room_id": room }],
            }}],
        }))
        .await;
    let new = upgrade(&alice, &room, "12", &[]).await;

    let link = state(&alice, &house, "m.space.child", &new).await;
    assert_eq!(
        link,
        json!({ "via": [server.name], "order": "a", "suggested": true })
    );
    assert_eq!(
        state(&alice, &house, "m.space.child", &room).await,
        json!({})
    );
    assert_eq!(state(&alice, &new, "m.space.parent", &house).await, up);
    let untouched = state(&alice, &foreign, "m.space.child", &new).await;
    assert_eq!(untouched, Value::Null, "alice has no power there");
    let rules = state(&alice, &cellar, "m.room.join_rules", "").await;
    assert_eq!(rules["allow"].as_array().unwrap().len(), 2, "{rules}");
    assert_eq!(rules["allow"][1]["room_id"], new.as_str());
    bob.join(&new).await;
    let left = format!("/rooms/{}/leave", enc(&room));
    assert_eq!(bob.post(&left, json!({})).await.0, 200);
    bob.join(&cellar).await;

    // The space itself is upgraded: what is in it stays in it.
    set(
        &alice,
        &house,
        "m.space.child",
        "!removed:x.example",
        json!({}),
    )
    .await;
    let palace = upgrade(&alice, &house, "12", &[]).await;
    let create = state(&alice, &palace, "m.room.create", "").await;
    assert_eq!(create["type"], "m.space");
    let link = state(&alice, &palace, "m.space.child", &new).await;
    assert_eq!(link["via"], json!([server.name]), "{link}");
    let removed = state(&alice, &palace, "m.space.child", "!removed:x.example").await;
    assert_eq!(removed, Value::Null);
    let parent = state(&alice, &new, "m.space.parent", &palace).await;
    assert_eq!(parent["canonical"], true, "{parent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_and_direct_chats_follow_to_the_new_room_on_every_server() {
    let (_folder, one, other) = two_servers().await;
    let alice = one.user("alice").await;
    let (mut bob, carol) = (other.user("bob").await, one.user("carol").await);
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "old" }))
        .await;
    bob.join(&format!("#old:{}", one.name)).await;
    carol.join(&room).await;
    let data = |user: &User, rest: &str| format!("/user/{}/{rest}", enc(&user.id));
    for user in [&alice, &bob, &carol] {
        let tag = data(user, &format!("rooms/{}/tags/m.favourite", enc(&room)));
        assert_eq!(user.put(&tag, json!({ "order": 0.3 })).await.0, 200);
        let own = data(user, &format!("rooms/{}/account_data/x.colour", enc(&room)));
        assert_eq!(user.put(&own, json!({ "colour": "red" })).await.0, 200);
        let direct = data(user, "account_data/m.direct");
        let chats = json!({ "@friend:x.example": ["!a:x.example", room] });
        assert_eq!(user.put(&direct, chats).await.0, 200);
    }
    // Whoever makes a room that says to be the successor gets nothing by that.
    let trap = carol
        .create_room(json!({
            "preset": "public_chat",
            "creation_content": { "predecessor": { "room_id": room, "event_id": "$x" } },
        }))
        .await;
    alice.join(&trap).await;
    let direct = data(&alice, "account_data/m.direct");
    let (_, chats) = alice.get(&direct).await;
    assert_eq!(chats["@friend:x.example"].as_array().unwrap().len(), 2);

    let new = upgrade(&alice, &room, "12", &[]).await;
    let bob_room = room.clone();
    bob.wait_for("the tombstone", |event| event["type"] == "m.room.tombstone")
        .await;
    let path = format!("/join/{}?via={}", enc(&new), enc(&one.name));
    let (status, body) = bob.post(&path, json!({})).await;
    assert_eq!(status, 200, "{body}");
    carol.join(&new).await;
    for user in [&alice, &bob, &carol] {
        eventually("tags to follow", async || {
            let tags = data(user, &format!("rooms/{}/tags", enc(&new)));
            let (_, tags) = user.get(&tags).await;
            (tags["tags"]["m.favourite"]["order"] == 0.3).then_some(())
        })
        .await;
        let own = data(user, &format!("rooms/{}/account_data/x.colour", enc(&new)));
        assert_eq!(user.get(&own).await.1["colour"], "red");
        let (_, chats) = user.get(&data(user, "account_data/m.direct")).await;
        assert_eq!(
            chats["@friend:x.example"],
            json!(["!a:x.example", bob_room, new]),
            "{}",
            user.id
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_follow_into_a_room_that_was_replaced_by_hand() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let old = alice.create_room(json!({})).await;
    let rule = |room: &str| format!("/pushrules/global/room/{}", enc(room));
    let silent = json!({ "actions": [] });
    assert_eq!(alice.put(&rule(&old), silent).await.0, 200);
    let named = json!({ "creation_content": { "predecessor": { "room_id": old } } });
    let new = alice.create_room(named).await;
    assert_eq!(
        alice.get(&rule(&new)).await.0,
        404,
        "only one names the other"
    );
    let tombstone = json!({ "body": "over there", "replacement_room": new });
    set(&alice, &old, "m.room.tombstone", "", tombstone).await;
    let (status, body) = alice.get(&rule(&new)).await;
    assert_eq!((status, &body["actions"]), (200, &json!([])), "{body}");
}
