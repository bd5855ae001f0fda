//! Requests of peers that are not what they should be.

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};

use crate::rig::{
    enc,
    http::{self, Ask as _},
    scripted::Scripted,
    server::{Folder, Server},
    tls::Tls,
};

async fn get(server: &Server, path: &str, authorization: Option<&str>) -> (u16, Value) {
    let mut request = http::client().get(server.url(path));
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let answer = request.ask().await.unwrap();
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or_default(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_and_forged_requests_are_refused() {
    let server = Server::start().await;
    let path = "/_matrix/federation/v1/backfill/!r:localhost?v=$e&limit=1";
    let own = format!(
        "X-Matrix origin=\"{0}\",destination=\"{0}\",key=\"ed25519:a\",sig=\"AAAA\"",
        server.name
    );
    let unreachable = format!(
        "X-Matrix origin=\"localhost:1\",destination=\"{}\",key=\"ed25519:a\",sig=\"AAAA\"",
        server.name
    );
    let elsewhere = "X-Matrix origin=\"localhost:1\",destination=\"other.example\",key=\"ed25519:a\",sig=\"AAAA\"";
    for header in [
        None,
        Some(""),
        Some("X-Matrix"),
        Some("Bearer abc"),
        Some("X-Matrix origin=,destination=,key=,sig="),
        Some("X-Matrix origin=\"a\\\\\",\"\",,,key"),
        Some(elsewhere),
        Some(own.as_str()),
        Some(unreachable.as_str()),
    ] {
        let (status, body) = get(&server, path, header).await;
        assert_eq!(
            (status, &body["errcode"]),
            (401, &json!("M_UNAUTHORIZED")),
            "{header:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_keys_are_signed_and_for_us() {
    let server = Server::start().await;
    let (status, body) = get(&server, "/_matrix/key/v2/server", None).await;
    assert_eq!(
        (status, body["server_name"].as_str()),
        (200, Some(server.name.as_str()))
    );
    let key_id = body["verify_keys"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap();
    assert!(
        body["signatures"][&server.name][key_id].is_string(),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_cannot_be_reached_give_clean_errors() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    // Nobody listens there, and a name that does not exist.
    for path in [
        "/join/%23a%3Alocalhost%3A1",
        "/directory/room/%23a%3Anowhere.invalid",
        "/profile/@a:localhost:1",
    ] {
        let (status, body) = if path.starts_with("/join") {
            alice.post(path, json!({})).await
        } else {
            alice.get(path).await
        };
        assert_eq!(
            (status, &body["errcode"]),
            (502, &json!("M_UNKNOWN")),
            "{path}: {body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_unrecognized() {
    let server = Server::start().await;
    let http = http::client();
    for (method, path, expected) in [
        ("GET", "/_matrix/federation/v1/query/nothing?a=b", 404),
        ("GET", "/_matrix/federation/v1/query", 404),
        ("GET", "/_matrix/federation/v3/version", 404),
        ("GET", "/_matrix/key/v3/server", 404),
        ("PUT", "/_matrix/federation/v1/query/profile", 405),
        ("POST", "/_matrix/federation/v1/send/txn", 405),
        ("PUT", "/_matrix/federation/v1/version", 405),
        ("POST", "/_matrix/federation/v1/hierarchy/!r:x", 405),
        ("DELETE", "/_matrix/federation/v1/3pid/onbind", 405),
        ("PUT", "/_matrix/key/v2/server", 405),
        ("GET", "/_matrix/key/v2/query", 405),
    ] {
        let request = http.request(method.parse().unwrap(), server.url(path));
        let answer = request.body("{}").ask().await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap_or_default();
        let got = (status, &body["errcode"]);
        assert_eq!(got, (expected, &json!("M_UNRECOGNIZED")), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_told_in_the_old_ways_too() {
    let server = Server::start().await;
    let (_, document) = get(&server, "/_matrix/key/v2/server", None).await;
    let key_id = document["verify_keys"].as_object().unwrap();
    let key_id = key_id.keys().next().unwrap().clone();
    let (status, body) = get(&server, &format!("/_matrix/key/v2/server/{key_id}"), None).await;
    assert_eq!(
        (status, &body["verify_keys"]),
        (200, &document["verify_keys"])
    );
    let name = &server.name;
    for path in [name.clone(), format!("{name}/{key_id}")] {
        let path = format!("/_matrix/key/v2/query/{path}?minimum_valid_until_ts=1");
        let (status, body) = get(&server, &path, None).await;
        let keys = &body["server_keys"][0];
        assert_eq!((status, keys["server_name"].as_str()), (200, Some(&**name)));
        assert_eq!(keys["verify_keys"], document["verify_keys"]);
    }
    for path in ["a b/x", "localhost/x?minimum_valid_until_ts=y"] {
        let (status, body) = get(&server, &format!("/_matrix/key/v2/query/{path}"), None).await;
        let got = (status, &body["errcode"]);
        assert_eq!(got, (400, &json!("M_INVALID_PARAM")), "{path}");
    }
}

/// More requests than one peer may have under way and waiting.
const FLOOD: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_peer_is_its_own_trouble() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with_tls(&tls).await;
    let alice = server.user("alice").await;
    let (flood, other) = (Scripted::start(&tls).await, Scripted::start(&tls).await);
    // Nothing of it can be checked before its keys are told.
    let held = flood.hold("server");
    let path = format!(
        "/_matrix/federation/v1/query/profile?user_id={}",
        enc(&alice.id)
    );
    let mut calls: FuturesUnordered<_> = (0..FLOOD)
        .map(|_| flood.call(&server, "GET", &path, None))
        .collect();
    let (status, body) = calls.next().await.unwrap();
    assert_eq!(
        (status, &body["errcode"]),
        (429, &json!("M_LIMIT_EXCEEDED"))
    );
    assert!(body["retry_after_ms"].as_u64().unwrap() > 0, "{body}");
    let (status, body) = other.call(&server, "GET", &path, None).await;
    assert_eq!(status, 200, "{body}");
    drop(held);
    let mut answered = 0;
    while let Some((status, body)) = calls.next().await {
        assert!(status == 200 || status == 429, "{status} {body}");
        answered += usize::from(status == 200);
    }
    assert!(answered > 50, "those that waited are answered: {answered}");
}
