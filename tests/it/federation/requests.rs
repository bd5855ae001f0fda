//! Requests of peers that are not what they should be.

use serde_json::{Value, json};

use crate::rig::server::Server;

async fn get(server: &Server, path: &str, authorization: Option<&str>) -> (u16, Value) {
    let mut request = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(server.url(path));
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    let answer = request.send().await.unwrap();
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
