//! Whose invitations a user wants.

use reqwest::Method;
use serde_json::{Value, json};

use super::rooms::two_servers;
use crate::rig::{enc, eventually, user::User};

const STABLE: &str = "m.invite_permission_config";
const LISTS: &str = "org.matrix.msc4155.invite_permission_config";

async fn set(user: &User, kind: &str, content: Value) {
    let path = format!("/user/{}/account_data/{kind}", enc(&user.id));
    let (status, answer) = user.put(&path, content).await;
    assert_eq!(status, 200, "{answer}");
}

/// Invites into a new room: the room and the answer.
async fn invite(from: &User, to: &User) -> (String, u16, Value) {
    let room = from.create_room(json!({ "preset": "private_chat" })).await;
    let path = format!("/rooms/{}/invite", enc(&room));
    let (status, answer) = from.post(&path, json!({ "user_id": to.id })).await;
    (room, status, answer["errcode"].clone())
}

/// Rooms that a fresh client is told it is invited to, by both kinds of sync.
async fn invited(user: &User) -> Vec<String> {
    let (status, answer) = user.get("/sync").await;
    assert_eq!(status, 200);
    let by_sync = answer["rooms"]["invite"].as_object();
    let by_sync: Vec<String> = by_sync
        .into_iter()
        .flat_map(|rooms| rooms.keys().cloned())
        .collect();
    let list = json!({
        "ranges": [[0, 99]], "timeline_limit": 1, "required_state": [], "filters": { "is_invite": true },
    });
    let body = json!({ "conn_id": "invitations", "lists": { "all": list } });
    let path = "/../unstable/org.matrix.simplified_msc3575/sync";
    let (status, answer) = user.call(Method::POST, path, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    let mut sliding: Vec<String> = answer["rooms"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    sliding.sort();
    let mut sorted = by_sync.clone();
    sorted.sort();
    assert_eq!(sorted, sliding);
    by_sync
}

#[tokio::test(flavor = "multi_thread")]
async fn unwanted_invitations_are_refused_or_not_told() {
    let (_folder, one, other) = two_servers().await;
    let (alice, carol) = (one.user("alice").await, one.user("carol").await);
    let (bob, boris) = (other.user("bob").await, other.user("boris").await);
    let blocked = (403, json!("M_INVITE_BLOCKED"));

    // Nobody at all; what came before is told no more, and again when all may invite.
    let (old, status, _) = invite(&carol, &alice).await;
    assert_eq!((status, invited(&alice).await), (200, vec![old.clone()]));
    set(&alice, STABLE, json!({ "default_action": "block" })).await;
    for inviter in [&carol, &bob] {
        let (_, status, errcode) = invite(inviter, &alice).await;
        assert_eq!((status, errcode), blocked, "{}", inviter.id);
    }
    assert_eq!(invited(&alice).await, Vec::<String>::new());
    let with_invite = json!({ "invite": [alice.id] });
    let (status, answer) = carol.post("/createRoom", with_invite).await;
    assert_eq!((status, answer["errcode"].clone()), blocked);
    let room = carol.create_room(json!({})).await;
    let path = format!(
        "/rooms/{}/state/m.room.member/{}",
        enc(&room),
        enc(&alice.id)
    );
    let (status, answer) = carol.put(&path, json!({ "membership": "invite" })).await;
    assert_eq!((status, answer["errcode"].clone()), blocked);
    set(&alice, STABLE, json!({})).await;
    assert_eq!(invited(&alice).await, [old]);

    // By lists: users before servers, allowed before ignored before blocked.
    let lists = json!({
        "allowed_users": [carol.id], "ignored_users": ["@bob:*"], "blocked_servers": ["localhost*"],
    });
    set(
        &carol,
        LISTS,
        json!({ "blocked_servers": null, "blocked_users": ["@x:y"] }),
    )
    .await;
    set(&alice, LISTS, lists).await;
    let (_, status, errcode) = invite(&boris, &alice).await;
    assert_eq!((status, errcode), blocked);
    let (ignored, status, _) = invite(&bob, &alice).await;
    assert_eq!(status, 200, "the one who invites does not notice");
    let (told, status, _) = invite(&carol, &alice).await;
    assert_eq!(status, 200);
    let shown = eventually("the invitation", async || {
        let rooms = invited(&alice).await;
        rooms.contains(&told).then_some(rooms)
    })
    .await;
    assert!(!shown.contains(&ignored), "{shown:?}");
    alice.join_via(&ignored, &other.name).await;
}
