//! A user of Synapse and a user of ours.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    federation_life,
    rig::{
        enc, eventually,
        peer::Synapse,
        server::{Folder, Server},
        tls::Tls,
        user::User,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn users_of_synapse_and_of_ours_live_together() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let ours = Server::with_tls(&tls).await;
    let theirs = Synapse::start(&tls).await;
    let mut alice = ours.user("alice").await;
    let mut bob = theirs.user("bob").await;
    for version in (1..=12).map(|version| version.to_string()) {
        federation_life((&mut alice, &ours.name), &mut bob, &version).await;
        federation_life((&mut bob, &theirs.name), &mut alice, &version).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_arrives_after_either_server_was_down() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let mut ours = Server::with_tls(&tls).await;
    let mut theirs = Synapse::start(&tls).await;
    let mut alice = ours.user("alice").await;
    let mut bob = theirs.user("bob").await;
    let room = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "outage" }))
        .await;
    bob.join(&format!("#outage:{}", ours.name)).await;
    alice.say(&room, "both up").await;
    bob.hears("both up").await;

    theirs.kill();
    for i in 0..3 {
        alice.say(&room, &format!("synapse was down {i}")).await;
    }
    theirs.restart().await;
    bob.say(&room, "synapse is back").await;
    alice.hears("synapse is back").await;
    for i in 0..3 {
        bob.hears(&format!("synapse was down {i}")).await;
    }

    ours.kill();
    for i in 0..3 {
        bob.say(&room, &format!("amtsbote was down {i}")).await;
    }
    ours.restart().await;
    alice.say(&room, "amtsbote is back").await;
    bob.hears("amtsbote is back").await;
    for i in 0..3 {
        alice.hears(&format!("amtsbote was down {i}")).await;
    }
}

/// The current state as a user's server sees it: event id by type and state key.
async fn state(user: &User, room: &str) -> BTreeMap<(String, String), String> {
    let (status, body) = user.get(&format!("/rooms/{}/state", enc(room))).await;
    assert_eq!(status, 200, "{body}");
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    let events = body.as_array().unwrap().iter();
    events
        .map(|event| {
            let key = (text(event, "type"), text(event, "state_key"));
            (key, text(event, "event_id"))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_agree_after_each_was_down() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let (mut ours, mut second, mut third) = tokio::join!(
        Server::with_tls(&tls),
        Synapse::start(&tls),
        Synapse::start(&tls)
    );
    let mut users = [
        ours.user("alice").await,
        second.user("bob").await,
        third.user("carol").await,
    ];
    let room = users[0]
        .create_room(json!({
            "preset": "public_chat", "room_alias_name": "three",
            "power_level_content_override": { "state_default": 0 },
        }))
        .await;
    let alias = format!("#three:{}", ours.name);
    users[1].join(&alias).await;
    users[2].join(&alias).await;
    users[0].say(&room, "all up").await;
    users[1].hears("all up").await;
    users[2].hears("all up").await;
    for down in 0..3 {
        match down {
            0 => ours.kill(),
            1 => second.kill(),
            _ => third.kill(),
        }
        for (at, user) in users.iter().enumerate().filter(|(at, _)| *at != down) {
            user.say(&room, &format!("{at} while {down} was down"))
                .await;
            let path = format!("/rooms/{}/state/m.room.topic/", enc(&room));
            let topic = json!({ "topic": format!("{at} in the time of {down}") });
            let (status, body) = user.put(&path, topic).await;
            assert_eq!(status, 200, "{body}");
        }
        match down {
            0 => ours.restart().await,
            1 => second.restart().await,
            _ => third.restart().await,
        }
        // Who speaks is heard of, and told what it missed.
        let back = format!("{down} is back");
        users[down].say(&room, &back).await;
        for (at, user) in users.iter_mut().enumerate() {
            user.hears(&back).await;
            for said_by in (0..3).filter(|said_by| *said_by != down && *said_by != at) {
                user.hears(&format!("{said_by} while {down} was down"))
                    .await;
            }
        }
    }
    eventually("three servers with the same state", async || {
        let first = state(&users[0], &room).await;
        let same = state(&users[1], &room).await == first && state(&users[2], &room).await == first;
        same.then_some(())
    })
    .await;
}
