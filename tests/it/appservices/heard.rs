//! What application services hear.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::keys::claim,
    rig::{
        appservice::{Appservice, room_path},
        enc, eventually,
        server::{Folder, Like, Server},
        tls::Tls,
        user::User,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_order_and_once_through_crashes_and_outages() {
    let irc = Appservice::start("irc", "").await;
    let mut sms = Appservice::new("sms", "");
    let mut server = Server::with(&Appservice::config(&[&irc, &sms]), None).await;
    irc.make_users_on(&server);
    let alice = server.user("alice").await;
    let ghost = format!("@_irc_bob:{}", server.name);
    let room = alice
        .create_room(json!({ "preset": "private_chat", "invite": [ghost] }))
        .await;
    let invitation = irc
        .hears("events", "the invitation", |it| {
            it["state_key"] == ghost.as_str()
        })
        .await;
    assert_eq!(
        (&invitation["content"]["membership"], &invitation["room_id"]),
        (&json!("invite"), &json!(room))
    );
    let bob = irc.bot(&server).masked(&ghost);
    bob.join(&room).await;
    let carol = sms.ghost(&server, "carol").await;
    alice
        .post(&room_path(&room, "invite"), json!({ "user_id": carol.id }))
        .await;
    carol.join(&room).await;

    let mut said: Vec<String> = Vec::new();
    for n in 0..10 {
        said.push(format!("well {n}"));
        alice.say(&room, said.last().unwrap()).await;
    }
    bob.say(&room, "and from the bridge").await;
    said.push("and from the bridge".to_owned());
    eventually("what was said", async || {
        (irc.texts() == said).then_some(())
    })
    .await;
    assert!(!sms.was_tried());

    // The service is out of order, and the server loses its power.
    irc.refuse(Some(500));
    for n in 0..120 {
        said.push(format!("ill {n}"));
        alice.say(&room, said.last().unwrap()).await;
    }
    server.kill();
    server.restart().await;
    said.push("after the crash".to_owned());
    alice.say(&room, "after the crash").await;
    irc.refuse(None);
    eventually("what was missed", async || {
        (irc.texts() == said).then_some(())
    })
    .await;

    // The other one was away all the time, and hears what its user heard, in its own order. It is
    // an old one.
    sms.grow_old();
    sms.up().await;
    eventually("all of it", async || (sms.texts() == said).then_some(())).await;

    // Who has left the room hears that, and no more.
    let (status, body) = bob.post(&room_path(&room, "leave"), json!({})).await;
    assert_eq!(status, 200, "{body}");
    irc.hears("events", "the leave", |it| {
        it["content"]["membership"] == "leave"
    })
    .await;
    alice.say(&room, "between us").await;
    eventually("what the other hears", async || {
        (sms.texts().last()? == "between us").then_some(())
    })
    .await;
    assert_eq!(irc.texts(), said);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_news_comes_to_who_asks_for_it() {
    let more = "receive_ephemeral: true\n\
        de.sorunome.msc2409.push_ephemeral: true\n\
        org.matrix.msc3202: true\n";
    let irc = Appservice::start("irc", more).await;
    let deaf = Appservice::start("deaf", "").await;
    let server = Server::with(&Appservice::config(&[&irc, &deaf]), None).await;
    let alice = server.user("alice").await;
    let bob = irc.ghost(&server, "bob").await;
    let hearer = deaf.ghost(&server, "hearer").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    hearer.join(&room).await;
    let event = alice.say(&room, "hello").await;

    ephemeral(&irc, (&alice, &bob), (&room, &event)).await;
    devices(&irc, (&alice, &bob), &room).await;

    deaf.hears("events", "what was said", |it| {
        it["content"]["body"] == "hello"
    })
    .await;
    assert!(deaf.heard("ephemeral").is_empty());
}

/// Typing, receipts and presence.
async fn ephemeral(irc: &Appservice, (alice, bob): (&User, &User), (room, event): (&str, &str)) {
    let path = room_path(room, &format!("typing/{}", enc(&alice.id)));
    alice
        .put(&path, json!({ "typing": true, "timeout": 60_000 }))
        .await;
    let typing = irc
        .hears("ephemeral", "typing", |it| {
            it["type"] == "m.typing" && it["content"]["user_ids"] == json!([alice.id])
        })
        .await;
    assert_eq!(typing["room_id"], json!(room));

    for (user, kind) in [
        (alice, "m.read.private"),
        (alice, "m.read"),
        (bob, "m.read.private"),
    ] {
        let path = room_path(room, &format!("receipt/{kind}/{}", enc(event)));
        let (status, body) = user.post(&path, json!({})).await;
        assert_eq!(status, 200, "{body}");
    }
    let of = |it: &Value, kind: &str, user: &str| {
        it["type"] == "m.receipt" && it["content"][event][kind][user].is_object()
    };
    irc.hears("ephemeral", "its own private receipt", |it| {
        of(it, "m.read.private", &bob.id)
    })
    .await;
    irc.hears("de.sorunome.msc2409.ephemeral", "a receipt", |it| {
        of(it, "m.read", &alice.id)
    })
    .await;
    let heard = irc.heard("ephemeral");
    assert!(!heard.iter().any(|it| of(it, "m.read.private", &alice.id)));

    let path = format!("/presence/{}/status", enc(&alice.id));
    alice
        .put(
            &path,
            json!({ "presence": "unavailable", "status_msg": "lunch" }),
        )
        .await;
    irc.hears("ephemeral", "presence", |it| {
        it["type"] == "m.presence" && it["content"]["status_msg"] == "lunch"
    })
    .await;
}

/// Devices of its users: keys, and messages to them.
async fn devices(irc: &Appservice, (alice, bob): (&User, &User), room: &str) {
    let (status, _) = bob.put("/devices/BRIDGE", json!({})).await;
    assert_eq!(status, 201);
    let device = bob.masked(&format!("{}&device_id=BRIDGE", bob.id));
    let keys =
        json!({ "one_time_keys": { "signed_curve25519:AAAA": { "key": "x", "signatures": {} } } });
    let (status, body) = device.post("/keys/upload", keys).await;
    assert_eq!(status, 200, "{body}");
    let message = json!({ "messages": { &bob.id: { "BRIDGE": { "secret": 1 } } } });
    let (status, body) = alice.put("/sendToDevice/m.test/t1", message).await;
    assert_eq!(status, 200, "{body}");
    let message = irc
        .hears(
            "de.sorunome.msc2409.to_device",
            "a message to a device",
            |it| it["type"] == "m.test",
        )
        .await;
    assert_eq!(
        (
            &message["to_user_id"],
            &message["to_device_id"],
            &message["sender"]
        ),
        (&json!(bob.id), &json!("BRIDGE"), &json!(alice.id))
    );
    let counts = irc.parts("org.matrix.msc3202.device_one_time_keys_count");
    let counts = counts.last().unwrap();
    assert_eq!(counts[&bob.id]["BRIDGE"], json!({ "signed_curve25519": 1 }));
    // A key is claimed: the service hears that it has to make new ones.
    let given = claim(alice, bob, "BRIDGE").await;
    assert!(given.is_some());
    eventually("the count of keys that are left", async || {
        let counts = irc.parts("org.matrix.msc3202.device_one_time_keys_count");
        let left = counts.last()?[&bob.id]["BRIDGE"]["signed_curve25519"].as_i64();
        (left.unwrap_or_default() == 0).then_some(())
    })
    .await;
    let lists = irc.parts("org.matrix.msc3202.device_lists");
    assert!(
        lists.iter().any(|it| it["changed"] == json!([bob.id])),
        "{lists:?}"
    );
    parted(irc, (alice, bob), room).await;
}

/// Who shares no room with its users any more is told once that is so, and not before.
async fn parted(irc: &Appservice, (alice, bob): (&User, &User), room: &str) {
    let public = json!({ "preset": "public_chat" });
    let (one, two) = (
        alice.create_room(public.clone()).await,
        alice.create_room(public).await,
    );
    for room in [&one, &two] {
        bob.join(room).await;
    }
    let left = || {
        let lists = irc.parts("org.matrix.msc3202.device_lists").into_iter();
        let left = lists.filter_map(|it| it["left"].as_array().cloned());
        left.flatten().filter(|id| *id == alice.id).count()
    };
    let leave = async |user: &User, room: &str, text: &str| {
        bob.say(room, text).await;
        let (status, answer) = user.post(&room_path(room, "leave"), json!({})).await;
        assert_eq!(status, 200, "{answer}");
    };
    let before = left();
    leave(alice, &one, "first").await;
    leave(bob, room, "second").await;
    bob.say(&two, "in between").await;
    irc.hears("events", "what is said in between", |it| {
        it["content"]["body"] == "in between"
    })
    .await;
    assert_eq!(left(), before);
    leave(bob, &two, "last").await;
    eventually("who shares no room any more", async || {
        (left() > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_service_are_invited_from_elsewhere() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let irc = Appservice::start("irc", "").await;
    let config = Appservice::config(&[&irc]);
    let like = Like {
        more: &config,
        ..Like::default()
    };
    let server = Server::like(like, &tls).await;
    irc.make_users_on(&server);
    let there = Server::with_tls(&tls).await;
    let mut zoe = there.user("zoe").await;
    let ghost = format!("@_irc_bob:{}", server.name);
    let room = zoe
        .create_room(json!({ "preset": "private_chat", "name": "Far away" }))
        .await;
    for target in [&ghost, &format!("@nobody:{}", server.name)] {
        let (status, body) = zoe
            .post(&room_path(&room, "invite"), json!({ "user_id": target }))
            .await;
        assert_eq!(status == 200, *target == ghost, "{body}");
    }
    let invitation = irc
        .hears("events", "the invitation", |it| {
            it["state_key"] == ghost.as_str()
        })
        .await;
    assert!(invitation["event_id"].is_string(), "{invitation}");
    assert_eq!(invitation["room_id"], json!(room));
    let preview = invitation["unsigned"]["invite_room_state"].as_array();
    let has_name = |it: &Value| it["content"]["name"] == "Far away";
    assert!(preview.unwrap().iter().any(has_name), "{invitation}");

    let bob = irc.bot(&server).masked(&ghost);
    bob.join_via(&room, &there.name).await;
    zoe.say(&room, "hello bridge").await;
    irc.hears("events", "what is said there", |it| {
        it["content"]["body"] == "hello bridge"
    })
    .await;
    bob.say(&room, "hello out there").await;
    zoe.hears("hello out there").await;

    // An alias that is made when somebody elsewhere asks for it.
    let bot = irc.bot(&server);
    let near = bot.create_room(json!({ "preset": "public_chat" })).await;
    let alias = format!("#_irc_libera:{}", server.name);
    let path = zoe.url(&format!("/directory/room/{}", enc(&alias)));
    assert_eq!(
        zoe.call(Method::GET, &path[zoe.url("").len()..], None)
            .await
            .0,
        404
    );
    let (status, body) = bot
        .put(
            &format!("/directory/room/{}", enc(&alias)),
            json!({ "room_id": near }),
        )
        .await;
    assert_eq!(status, 200, "{body}");
    zoe.join(&alias).await;
    assert!(
        irc.asked()
            .iter()
            .any(|it| it.contains("/rooms/%23_irc_libera"))
    );
}
