//! One-time keys that many claim at once.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::json;

use super::rooms::two_servers;
use crate::{
    client::keys::upload,
    rig::{
        eventually,
        http::{self, Ask as _},
        scripted::{Answer, server_and_peer},
        server::Server,
        user::User,
    },
};

const FALLBACK: &str = "signed_curve25519:FALL";

/// What a claim gave; `None`: nothing, or no answer.
async fn try_claim(asking: &User, user: &User, device: &str) -> Option<String> {
    let http = http::client();
    let wish = json!({ "one_time_keys": { &user.id: { device: "signed_curve25519" } } });
    let request = http
        .post(asking.url("/keys/claim"))
        .bearer_auth(&asking.token)
        .body(wish.to_string());
    let answer = request.ask().await.ok()?;
    let body: serde_json::Value = answer.json().await.ok()?;
    let keys = body["one_time_keys"][&user.id][device].as_object()?;
    assert_eq!(keys.len(), 1, "{body}");
    keys.keys().next().cloned()
}

/// Keys that were given, each but the fallback key once.
fn distinct(given: Vec<String>, all: &mut BTreeSet<String>) {
    for key in given.into_iter().filter(|key| key != FALLBACK) {
        assert!(all.insert(key.clone()), "{key} was given twice");
    }
}

/// One-time keys of a user that wait.
async fn waiting(server: &Server, user: &User) -> usize {
    let count: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM one_time_key JOIN mx_user USING (user_nid)
         WHERE mxid = $1 AND given_ts IS NULL",
    )
    .bind(&user.id)
    .fetch_one(&mut server.database().await)
    .await
    .unwrap();
    usize::try_from(count).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_a_peer_at_once_never_get_the_same_key() {
    let (_folder, mut one, other) = two_servers().await;
    let alice = one.user("alice").await;
    let (bob, carol) = (one.user("bob").await, other.user("carol").await);
    let device = upload(&alice, 120).await;
    let mut all = BTreeSet::new();
    for _ in 0..2 {
        let here = (0..25).map(|_| try_claim(&bob, &alice, &device));
        let there = (0..25).map(|_| try_claim(&carol, &alice, &device));
        let (here, there) = tokio::join!(join_all(here), join_all(there));
        let given: Vec<String> = here.into_iter().chain(there).flatten().collect();
        assert_eq!(given.len(), 50, "everybody got one");
        distinct(given, &mut all);
    }
    assert_eq!(waiting(&one, &alice).await, 120 - all.len());

    // A server that ends between the claim and the answer may lose keys, and gives none again.
    let claims = (0..60).map(|_| try_claim(&bob, &alice, &device));
    let begun = waiting(&one, &alice).await;
    let (given, ()) = tokio::join!(join_all(claims), async {
        eventually("the claims to begin", async || {
            (waiting(&one, &alice).await < begun).then_some(())
        })
        .await;
        one.kill();
    });
    distinct(given.into_iter().flatten().collect(), &mut all);
    one.restart().await;
    let mut last = None;
    for _ in 0..121 {
        let asking = if all.len() % 2 == 0 { &bob } else { &carol };
        last = try_claim(asking, &alice, &device).await;
        if last.as_deref() == Some(FALLBACK) {
            break;
        }
        let before = waiting(&one, &alice).await;
        distinct(last.clone().into_iter().collect(), &mut all);
        assert!(all.len() + before <= 120);
    }
    assert_eq!(last.as_deref(), Some(FALLBACK), "in the end");
    assert_eq!(waiting(&one, &alice).await, 0, "and only in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_gives_keys_of_the_devices_that_were_asked_for() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let alice = server.user("alice").await;
    let (bob, eve) = (peer.user("bob"), "@eve:elsewhere.example");
    let key = json!({ "signed_curve25519:A": { "key": "A", "signatures": {} } });
    let answer = json!({ "one_time_keys": {
        &bob: { "ASKED": key, "OTHER": key }, eve: { "ASKED": key }, &alice.id: { "X": key },
    }});
    peer.route("user", move |asked, honest| {
        if asked.args == ["keys", "claim"] {
            Answer::ok(answer.clone())
        } else {
            honest
        }
    });
    let wish = json!({ "one_time_keys": { &bob: { "ASKED": "signed_curve25519" } } });
    let (status, body) = alice.post("/keys/claim", wish.clone()).await;
    assert_eq!(status, 200, "{body}");
    let given = body["one_time_keys"].as_object().unwrap();
    assert_eq!(given.keys().collect::<Vec<_>>(), [&bob], "{body}");
    let devices = given[&bob].as_object().unwrap();
    assert_eq!(devices.keys().collect::<Vec<_>>(), ["ASKED"], "{body}");

    // Nonsense is a failure of that peer and of nobody else.
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for text in [deep.as_str(), "{\"one_time_keys\":7}", "", "x"] {
        peer.route_to("user", Answer::Text(text.to_owned()));
        let (status, body) = alice.post("/keys/claim", wish.clone()).await;
        assert_eq!(status, 200, "{body}");
        assert!(body["failures"][&peer.name].is_object(), "{body}");
    }
    peer.route_to(
        "user",
        Answer::Endless("{\"a\":\"".to_owned(), "x".repeat(65_536)),
    );
    let (status, body) = alice.post("/keys/claim", wish).await;
    assert_eq!(status, 200, "{body}");
    assert!(body["failures"][&peer.name].is_object(), "{body}");
    assert!(server.is_well().await);
}
