//! Signing keys that take the place of others.

use serde_json::{Value, json};

use super::graph::shared_room;
use crate::rig::{
    eventually,
    server::{Folder, Server},
    tls::Tls,
};

async fn keys(server: &Server) -> Value {
    server.document("/_matrix/key/v2/server").await
}

/// Names of the keys in a part of the document.
fn names(document: &Value, part: &str) -> Vec<String> {
    let keys = document[part].as_object().unwrap();
    keys.keys().cloned().collect()
}

/// Makes a new key and waits until it is in use; returns the document with it.
async fn rotate(server: &Server, overlap: &str) -> Value {
    let before = keys(server).await;
    let done = server.run_again(&["rotate-signing-key", "--overlap", overlap]);
    assert!(done.status.success(), "{done:?}");
    server.hang_up();
    eventually("a document with another key", async || {
        let now = keys(server).await;
        (now["verify_keys"] != before["verify_keys"]).then_some(now)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn old_keys_still_verify_after_a_rotation() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let (mut one, other) = (Server::with_tls(&tls).await, Server::with_tls(&tls).await);
    let (alice, mut bob) = (one.user("alice").await, other.user("bob").await);
    let room = shared_room(&one, &alice, &mut bob, "keys").await;
    alice.say(&room, "with the first key").await;
    bob.hears("with the first key").await;
    let first = names(&keys(&one).await, "verify_keys").remove(0);

    let document = rotate(&one, "24").await;
    let both = names(&document, "verify_keys");
    assert_eq!(both.len(), 2, "{document}");
    assert!(both.contains(&first), "{document}");
    assert_eq!(document["old_verify_keys"], json!({}));
    let signed = names(&document["signatures"], &one.name);
    assert_eq!(signed, both, "{document}");
    alice.say(&room, "with the second").await;
    bob.hears("with the second").await;

    let document = rotate(&one, "0").await;
    let old = names(&document, "old_verify_keys");
    assert_eq!(old.len(), 1, "{document}");
    let second = old[0].clone();
    assert!(both.contains(&second) && second != first, "{document}");
    assert!(document["old_verify_keys"][&second]["expired_ts"].is_i64());
    // Nothing of this is in memory only.
    one.kill();
    one.restart().await;
    assert_eq!(
        keys(&one).await["old_verify_keys"],
        document["old_verify_keys"]
    );
    let alice = one.user("alice2").await;
    alice.join(&room).await;
    alice.say(&room, "with the third").await;
    bob.hears("with the third").await;

    // Who comes now verifies what was signed with every one of them.
    let third = Server::with_tls(&tls).await;
    let carol = third.user("carol").await;
    carol.join_via(&room, &one.name).await;
    let heard = carol.history(&room).await;
    for said in ["with the first key", "with the second", "with the third"] {
        assert!(heard.contains(&said.to_owned()), "{heard:?}");
    }
}
