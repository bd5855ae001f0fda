//! Finding users by name.

use serde_json::{Value, json};

use crate::rig::{enc, eventually, server::Server, user::User};

/// (user id, display name) of whom a search finds.
pub(crate) async fn search(user: &User, term: &str) -> Vec<(String, Value)> {
    let body = json!({ "search_term": term });
    let (status, answer) = user.post("/user_directory/search", body).await;
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap().iter();
    results
        .map(|result| {
            let id = result["user_id"].as_str().unwrap();
            (id.to_owned(), result["display_name"].clone())
        })
        .collect()
}

pub(crate) async fn set_name(user: &User, name: &str) {
    let path = format!("/profile/{}/displayname", enc(&user.id));
    let (status, answer) = user.put(&path, json!({ "displayname": name })).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_found_by_whom_they_are_open_to_and_by_no_private_name() {
    let server = Server::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let eve = server.user("eve").await;
    set_name(&alice, "Alice Köhler").await;
    let found = vec![(alice.id.clone(), json!("Alice Köhler"))];
    assert_eq!(search(&eve, "alice").await, [], "in no room that is open");

    let private = bob
        .create_room(json!({ "preset": "private_chat", "invite": [alice.id] }))
        .await;
    alice.join(&private).await;
    let path = format!(
        "/rooms/{}/state/m.room.member/{}",
        enc(&private),
        enc(&alice.id)
    );
    let freddy = json!({ "membership": "join", "displayname": "Freddy" });
    assert_eq!(alice.put(&path, freddy).await.0, 200);
    for term in ["alice", "KOEHLER al", "köh", &alice.id, "@alice"] {
        assert_eq!(search(&bob, term).await, found, "{term}");
    }
    assert_eq!(search(&eve, "alice").await, [], "shares no room");
    assert_eq!(search(&bob, "bob").await, [], "in no room that is open");

    let open = alice.create_room(json!({ "preset": "public_chat" })).await;
    for term in ["alice", "koehler", "Alice Kö"] {
        assert_eq!(search(&eve, term).await, found, "{term}");
    }
    for nothing in ["freddy", "lice", "alice bob", "", "':*&|!"] {
        assert_eq!(search(&eve, nothing).await, [], "{nothing}");
    }
    assert_eq!(search(&bob, "freddy").await, []);
    assert_eq!(search(&alice, "alice").await, found, "herself, in public");

    let rule = json!({ "join_rule": "invite" });
    let path = format!("/rooms/{}/state/m.room.join_rules", enc(&open));
    assert_eq!(alice.put(&path, rule).await.0, 200);
    assert_eq!(search(&eve, "alice").await, []);
    let path = format!("/directory/list/room/{}", enc(&open));
    let listed = json!({ "visibility": "public" });
    assert_eq!(alice.put(&path, listed).await.0, 200);
    assert_eq!(search(&eve, "alice").await, found, "in our directory");

    let auth = json!({
        "type": "m.login.password", "password": "password of alice",
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    let (status, answer) = alice
        .post("/account/deactivate", json!({ "auth": auth }))
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(search(&bob, "alice").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_limited_and_whole_words_come_first() {
    let mut server = Server::start().await;
    let eve = server.user("eve").await;
    let room = eve.create_room(json!({ "preset": "public_chat" })).await;
    for i in 0..4 {
        let user = server.user(&format!("muster{i}")).await;
        set_name(&user, &format!("Muster{i} Anna")).await;
        user.join(&room).await;
    }
    let exact = server.user("muster").await;
    exact.join(&room).await;
    let body = json!({ "search_term": "muster", "limit": 2 });
    let (_, answer) = eve.post("/user_directory/search", body).await;
    assert_eq!(answer["limited"], true, "{answer}");
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer["results"][0]["user_id"], exact.id.as_str());
    let body = json!({ "search_term": "anna", "limit": 1000 });
    let (_, answer) = eve.post("/user_directory/search", body).await;
    assert_eq!(answer["limited"], false, "{answer}");
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(4));

    // It goes on where it was.
    server.kill();
    server.restart().await;
    set_name(&exact, "Erika").await;
    eventually("the new name", async || {
        let found = search(&eve, "erika").await;
        (found == [(exact.id.clone(), json!("Erika"))]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn colleagues_are_found_where_the_operator_wants_it() {
    let more = "[registration]\nopen = true\n[user_directory]\nsearch_all_users = true\n";
    let server = Server::with(more, None).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    set_name(&alice, "Alice Köhler").await;
    let found = vec![(alice.id.clone(), json!("Alice Köhler"))];
    assert_eq!(search(&bob, "köhler").await, found);
    assert_eq!(search(&bob, "nobody").await, []);
}
