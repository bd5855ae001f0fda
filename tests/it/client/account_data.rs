//! Account data that ends (MSC3391), also with a device (MSC3890).

use reqwest::Method;
use serde_json::{Value, json};

use super::pushers::login;
use crate::rig::{enc, server::Server, user::User};

const DELETION: &str = "/../unstable/org.matrix.msc3391";

/// The content of a type that a sync tells; `None`: it tells nothing of it.
fn told(events: &Value, kind: &str) -> Option<Value> {
    let mut events = events.as_array().into_iter().flatten();
    let event = events.find(|event| event["type"] == kind)?;
    Some(event["content"].clone())
}

/// What a client hears that begins anew.
async fn anew(user: &User) -> Value {
    let mut user = user.again();
    user.since = None;
    user.sync(0).await
}

async fn delete(user: &User, path: &str) -> u16 {
    let path = format!("{DELETION}{path}");
    user.call(Method::DELETE, &path, None).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_is_told_once_and_then_is_not_there() {
    let server = Server::start().await;
    let (mut alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({})).await;
    let of_user = format!("/user/{}/account_data/de.bwi.a", enc(&alice.id));
    let of_room = format!(
        "/user/{}/rooms/{}/account_data/de.bwi.b",
        enc(&alice.id),
        enc(&room)
    );
    for path in [&of_user, &of_room] {
        assert_eq!(alice.put(path, json!({ "n": 1 })).await.0, 200);
    }
    alice.sync(0).await;
    assert_eq!(delete(&bob, &of_user).await, 403);
    for path in [&of_user, &of_room] {
        assert_eq!(delete(&alice, path).await, 200);
        let (status, answer) = alice.get(path).await;
        assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")));
    }
    let sync = alice.sync(0).await;
    let in_room = |sync: &Value| sync["rooms"]["join"][&room]["account_data"]["events"].clone();
    assert_eq!(
        told(&sync["account_data"]["events"], "de.bwi.a"),
        Some(json!({}))
    );
    assert_eq!(told(&in_room(&sync), "de.bwi.b"), Some(json!({})));
    let sync = anew(&alice).await;
    assert_eq!(told(&sync["account_data"]["events"], "de.bwi.a"), None);
    assert_eq!(told(&in_room(&sync), "de.bwi.b"), None);

    // What is not there can be deleted; what is the server's cannot.
    assert_eq!(delete(&alice, &of_user).await, 200);
    assert_eq!(alice.sync(0).await["account_data"]["events"], json!([]));
    let rules = format!("/user/{}/account_data/m.push_rules", enc(&alice.id));
    assert_eq!(delete(&alice, &rules).await, 405);

    // It may come again; and what is set to be empty stays, as the specification has it.
    assert_eq!(alice.put(&of_user, json!({ "n": 2 })).await.0, 200);
    assert_eq!(alice.get(&of_user).await, (200, json!({ "n": 2 })));
    assert_eq!(alice.put(&of_user, json!({})).await.0, 200);
    assert_eq!(alice.get(&of_user).await, (200, json!({})));

    // Whom one ignored is heard again.
    let list = json!({ "ignored_users": { bob.id.as_str(): {} } });
    let ignored = format!("/user/{}/account_data/m.ignored_user_list", enc(&alice.id));
    let open = bob.create_room(json!({ "preset": "public_chat" })).await;
    alice.join(&open).await;
    alice.put(&ignored, list).await;
    assert_eq!(delete(&alice, &ignored).await, 200);
    alice.sync(0).await;
    bob.say(&open, "do you hear me?").await;
    alice.hears("do you hear me?").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_account_data_is_none_where_the_operator_wants_it() {
    let more = "[registration]\nopen = true\n[unstable]\naccount_data_deletion = true\n";
    let server = Server::with(more, None).await;
    let alice = server.user("alice").await;
    let path = format!("/user/{}/account_data/de.bwi.a", enc(&alice.id));
    assert_eq!(alice.put(&path, json!({ "n": 1 })).await.0, 200);
    assert_eq!(alice.put(&path, json!({})).await.0, 200);
    assert_eq!(alice.get(&path).await.0, 404);
    let versions = server.document("/_matrix/client/versions").await;
    assert_eq!(versions["unstable_features"]["org.matrix.msc3391"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_device_end_with_it() {
    let server = Server::start().await;
    let mut alice = server.user("alice").await;
    let (phone, device) = login(&server, &alice, "alice").await;
    let kinds = ["m", "org.matrix.msc3890"]
        .map(|name| format!("{name}.local_notification_settings.{device}"));
    let path = |kind: &str| format!("/user/{}/account_data/{}", enc(&alice.id), enc(kind));
    let paths = kinds.each_ref().map(|kind| path(kind));
    let other = path("m.local_notification_settings.OTHER");
    for path in paths.iter().chain([&other]) {
        assert_eq!(alice.put(path, json!({ "is_silenced": true })).await.0, 200);
    }
    alice.sync(0).await;
    assert_eq!(phone.post("/logout", json!({})).await.0, 200);
    for path in &paths {
        assert_eq!(alice.get(path).await.0, 404);
    }
    assert_eq!(alice.get(&other).await.0, 200);
    let sync = alice.sync(0).await;
    for kind in &kinds {
        assert_eq!(told(&sync["account_data"]["events"], kind), Some(json!({})));
    }
}
