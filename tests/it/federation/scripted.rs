//! The scripted peer is an honest server where no script says otherwise.

use serde_json::json;

use crate::rig::{
    scripted::Scripted,
    server::{Folder, Server},
    tls::Tls,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_scripted_peer_and_we_join_each_others_rooms() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with_tls(&tls).await;
    let peer = Scripted::start(&tls).await;
    let mut alice = server.user("alice").await;
    let bob = peer.user("bob");
    // Only who asks for it gets a room without its members.
    peer.omit_members(true);
    for version in ["1", "10", "11", "12"] {
        let theirs = peer.room(version, &bob);
        theirs.message(&bob, "before the join");
        alice.join_via(&theirs.id, &peer.name).await;
        let said = format!("to alice {version}");
        peer.send(&server, &[&theirs.message(&bob, &said)]).await;
        alice.hears(&said).await;
        let said = format!("to bob {version}");
        alice.say(&theirs.id, &said).await;
        peer.hears(&said).await;
        assert!(
            alice
                .history(&theirs.id)
                .await
                .contains(&"before the join".to_owned())
        );
        // What only its answers tell: the event before the one that is sent.
        let skipped = format!("skipped {version}");
        theirs.message(&bob, &skipped);
        let event = theirs.message(&bob, "after a hole");
        let results = peer.send(&server, &[&event]).await;
        assert_eq!(results[&event.id], json!({}), "{results}");
        alice.hears(&skipped).await;

        let ours = alice
            .create_room(json!({ "room_version": version, "preset": "public_chat" }))
            .await;
        let ours = peer.join(&server, &ours, &bob).await;
        let said = format!("bob is in {version}");
        peer.send(&server, &[&ours.message(&bob, &said)]).await;
        alice.hears(&said).await;
        let said = format!("welcome {version}");
        alice.say(&ours.id, &said).await;
        peer.hears(&said).await;

        let closed = peer.room(version, &bob);
        closed.state(&bob, "m.room.join_rules", json!({ "join_rule": "invite" }));
        peer.invite(&server, &closed, &bob, &alice.id).await;
        alice.is_invited(&closed.id).await;
        alice.join_via(&closed.id, &peer.name).await;
    }
}
