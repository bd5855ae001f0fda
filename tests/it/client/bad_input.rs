//! What clients should not send, and what they are told.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    enc,
    http::{self, Ask as _},
    operator::Operator,
    server::Server,
};

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn bad_requests_get_the_specified_errors() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let http = http::client();
    let send = format!(
        "/_matrix/client/v3/rooms/{}/send/m.room.message/",
        enc(&room)
    );
    let long = "x".repeat(70_000);
    let large = json!({ "msgtype": "m.text", "body": long }).to_string();
    let long_type = format!(
        "/_matrix/client/v3/rooms/{}/state/{}",
        enc(&room),
        "t".repeat(300)
    );
    let cases: Vec<(Method, String, &str, u16, &str)> = vec![
        (Method::PUT, format!("{send}1"), "{", 400, "M_NOT_JSON"),
        (Method::PUT, format!("{send}2"), "[]", 400, "M_BAD_JSON"),
        (
            Method::PUT,
            format!("{send}3"),
            r#"{"a":1.5}"#,
            400,
            "M_BAD_JSON",
        ),
        (
            Method::PUT,
            format!("{send}4"),
            r#"{"a":9007199254740993}"#,
            400,
            "M_BAD_JSON",
        ),
        (Method::PUT, format!("{send}5"), &large, 413, "M_TOO_LARGE"),
        (Method::PUT, long_type, "{}", 413, "M_TOO_LARGE"),
        (
            Method::POST,
            "/_matrix/client/v3/createRoom".into(),
            r#"{"name":1}"#,
            400,
            "M_BAD_JSON",
        ),
        (
            Method::POST,
            "/_matrix/client/v3/createRoom".into(),
            r#"{"room_version":"99"}"#,
            400,
            "M_UNSUPPORTED_ROOM_VERSION",
        ),
        (
            Method::GET,
            "/_matrix/client/v3/sync?since=x".into(),
            "",
            400,
            "M_INVALID_PARAM",
        ),
        (
            Method::GET,
            "/_matrix/client/v3/sync?filter=99".into(),
            "",
            400,
            "M_INVALID_PARAM",
        ),
        (
            Method::GET,
            "/_matrix/client/v3/nonsense".into(),
            "",
            404,
            "M_UNRECOGNIZED",
        ),
        (
            Method::PATCH,
            "/_matrix/client/v3/sync".into(),
            "",
            405,
            "M_UNRECOGNIZED",
        ),
        (
            Method::GET,
            "/_matrix/client/v3/rooms/x/state".into(),
            "",
            400,
            "M_INVALID_PARAM",
        ),
        (
            Method::POST,
            "/_matrix/client/v3/join/x".into(),
            "{}",
            400,
            "M_INVALID_PARAM",
        ),
    ];
    for (method, path, body, status, errcode) in cases {
        let request = http
            .request(method.clone(), server.url(&path))
            .bearer_auth(&alice.token)
            .body(body.to_owned());
        let answer = request.ask().await.unwrap();
        let got = answer.status().as_u16();
        let said: Value = answer.json().await.unwrap_or_default();
        let what: String = format!("{method} {path} {body}")
            .chars()
            .take(160)
            .collect();
        assert_eq!(
            (got, said["errcode"].as_str()),
            (status, Some(errcode)),
            "{what}: {said}"
        );
    }
    let request = http.post(server.url("/_matrix/client/v3/register"));
    let answer = request
        .body(&b"{\"test\":\"a\x81\"}"[..])
        .ask()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["errcode"], "M_NOT_JSON", "not UTF-8");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_and_checked() {
    let server = Server::start().await;
    let http = http::client();
    let url = server.url("/_matrix/client/v3/joined_rooms");
    for (header, errcode) in [
        (None, "M_MISSING_TOKEN"),
        (Some("Basic abc"), "M_MISSING_TOKEN"),
        (Some("Bearer nonsense"), "M_UNKNOWN_TOKEN"),
    ] {
        let mut request = http.get(&url);
        if let Some(header) = header {
            request = request.header("Authorization", header);
        }
        let answer = request.ask().await.unwrap();
        assert_eq!(answer.status(), 401);
        let said: Value = answer.json().await.unwrap();
        assert_eq!(said["errcode"], errcode, "{header:?}");
    }
    let profile = server.url("/_matrix/client/v3/profile/@a:b/displayname");
    let answer = http.put(profile).body("nonsense").ask().await.unwrap();
    assert_eq!(answer.status(), 401, "before anything else is looked at");
    let options = http.request(Method::OPTIONS, &url).ask().await.unwrap();
    assert!(options.status().is_success());
    assert_eq!(options.headers()["access-control-allow-origin"], "*");
}

/// Everything switched on that has endpoints of its own.
const EVERYTHING: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
                          [unstable]\nthread_subscriptions = true\n\
                          [rendezvous]\nenabled = true\n\
                          [server_notices]\nlocalpart = \"notices\"\n\
                          [account_validity]\nperiod_days = 30\n\
                          [[terms.policies]]\nid = \"privacy_policy\"\nversion = \"1\"\n\
                          texts.de = { name = \"x\", url = \"https://localhost/x\" }\n\
                          [well_known]\nclient = \"https://localhost\"\n\
                          [oauth]\nenabled = true\n\
                          [[oidc]]\nid = \"idp\"\nissuer = \"http://127.0.0.1:9\"\n\
                          client_id = \"a\"\nbackchannel_logout = true\n";

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_that_is_listed_is_served() {
    let server = Server::with(EVERYTHING, None).await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ENDPOINTS.md");
    let http = http::client();
    for line in std::fs::read_to_string(file).unwrap().lines().skip(6) {
        let (method, path) = line.trim_matches(['|', ' ']).split_once(" | ").unwrap();
        let path = path.trim_matches('`').replace("{action}", "cancel");
        let path = path.replace(['{', '}'], "");
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = http.request(method, server.url(&path)).ask().await.unwrap();
        let body = answer.text().await.unwrap();
        assert!(!body.contains("M_UNRECOGNIZED"), "{line}: {body}");
    }
}

/// Endpoints that end the session they are called with, or wait.
const LEFT_OUT: [&str; 5] = [
    "/logout",
    "/deactivate",
    "/account/password",
    "/sync",
    "/delete_devices",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_endpoint_breaks_on_what_it_does_not_expect() {
    let server = Server::with(EVERYTHING, None).await;
    let operator = Operator::of(&server).await;
    let list = include_str!("../../../docs/ENDPOINTS.md");
    let rows = list.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let method = Method::from_bytes(cells.next()?.as_bytes()).ok()?;
        Some((method, cells.next()?.strip_prefix('`')?.strip_suffix('`')?))
    });
    let rows: Vec<(Method, &str)> = rows
        .filter(|(_, path)| {
            path.starts_with('/') && !LEFT_OUT.iter().any(|out| path.ends_with(out))
        })
        .collect();
    assert!(rows.len() > 100, "{}", rows.len());
    let http = http::client();
    for (method, path) in rows {
        for body in [
            "",
            "{}",
            "[]",
            "null",
            "\"x\"",
            "{\"type\":1}",
            "{\"type\":\"x\"}",
        ] {
            for filling in ["x", "%21x:localhost", "@x:localhost"] {
                let filled = fill(path, filling);
                let request = http
                    .request(method.clone(), server.url(&filled))
                    .bearer_auth(&operator.token)
                    .body(body);
                let answer = request.ask().await.unwrap();
                assert_ne!(answer.status(), 500, "{method} {filled} {body}");
            }
        }
    }
}

/// A path with the same text in every place that it leaves open.
fn fill(path: &str, filling: &str) -> String {
    let segments = path.split('/').map(|segment| {
        if segment.starts_with('{') {
            filling
        } else {
            segment
        }
    });
    segments.collect::<Vec<_>>().join("/")
}
