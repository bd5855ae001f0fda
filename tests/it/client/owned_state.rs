//! State that belongs to a user (MSC3757), in rooms of a version that has it.

use serde_json::{Value, json};

use crate::rig::{enc, server::Server, user::User};

const KIND: &str = "de.bwi.test";
const BEHIND: &str = "_key:!@#$1";

async fn set(user: &User, room: &str, key: &str) -> (u16, Value) {
    let path = format!("/rooms/{}/state/{KIND}/{}", enc(room), enc(key));
    let (status, answer) = user.put(&path, json!({ "by": user.id, "for": key })).await;
    (status, answer["errcode"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_owner_sets_it_and_who_stands_above() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let (done, forbidden, bad) = (
        (200, Value::Null),
        (403, json!("M_FORBIDDEN")),
        (400, json!("M_BAD_JSON")),
    );
    for version in ["org.matrix.msc3757.10", "org.matrix.msc3757.11"] {
        let room = alice
            .create_room(json!({
                "preset": "public_chat",
                "room_version": version,
                "power_level_content_override": { "events": { KIND: 0 } },
            }))
            .await;
        bob.join(&room).await;
        carol.join(&room).await;
        let of = |user: &User, behind: &str| format!("{}{behind}", user.id);
        for key in [of(&bob, ""), of(&bob, BEHIND)] {
            assert_eq!(set(&bob, &room, &key).await, done, "{version} {key}");
            assert_eq!(set(&alice, &room, &key).await, done, "{version} {key}");
            assert_eq!(set(&carol, &room, &key).await, forbidden, "{version} {key}");
        }
        let misplaced = format!("@before_{}", bob.id);
        assert_eq!(set(&bob, &room, &misplaced).await, forbidden);
        assert_eq!(set(&alice, &room, "@elsewhere:b.example").await, done);
        for key in ["@oops".to_owned(), of(&alice, "@key:1")] {
            assert_eq!(set(&alice, &room, &key).await, bad, "{version} {key}");
        }
        assert_eq!(set(&carol, &room, "no owner").await, done);
    }

    // As in all other versions nobody sets what begins with the id of another.
    let room = alice.create_room(json!({ "room_version": "11" })).await;
    for key in [
        bob.id.clone(),
        format!("{}{BEHIND}", alice.id),
        "@oops".to_owned(),
    ] {
        assert_eq!(set(&alice, &room, &key).await, forbidden, "{key}");
    }
    let (_, answer) = alice.get("/capabilities").await;
    let available = &answer["capabilities"]["m.room_versions"]["available"];
    assert_eq!(available["org.matrix.msc3757.10"], "unstable");
    assert_eq!(available["12"], "stable");
}
