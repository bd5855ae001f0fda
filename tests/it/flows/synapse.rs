//! A user of Synapse and a user of ours.

use serde_json::json;

use crate::{
    federation_life,
    rig::{
        peer::Synapse,
        server::{Folder, Server},
        tls::Tls,
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
