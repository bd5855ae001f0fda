//! Rendezvous of devices.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::rig::{
    http::{self, Ask as _},
    server::Server,
};

const BY_HEADERS: &str = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous";
const BY_BODY: &str = "/_matrix/client/unstable/io.element.msc4388/rendezvous";
const CONFIG: &str = "[registration]\nopen = true\n[rendezvous]\nenabled = true\n\
    [well_known]\nclient = \"https://matrix.amt.example/\"\n";

/// A request with a text and perhaps one more header.
async fn call(
    method: Method,
    url: &str,
    (name, value): (&str, &str),
    text: Option<&str>,
) -> Response {
    let http = http::client();
    let mut request = http.request(method, url).header(name, value);
    if let Some(text) = text {
        request = request.header("Content-Type", "text/plain");
        request = request.body(text.to_owned());
    }
    request.ask().await.unwrap()
}

fn header(answer: &Response, name: &str) -> String {
    let value = answer.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap()).to_owned()
}

const NONE: (&str, &str) = ("X-Requested-With", "test");

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_meet_at_any_node() {
    let server = Server::with(CONFIG, None).await;
    let node = server.node().await;
    let made = call(Method::POST, &server.url(BY_HEADERS), NONE, Some("hello")).await;
    assert_eq!(made.status(), 201);
    assert_eq!(header(&made, "Cache-Control"), "no-store");
    assert!(header(&made, "Access-Control-Expose-Headers").contains("ETag"));
    assert!(header(&made, "Expires").ends_with("GMT"));
    let first = header(&made, "ETag");
    let body: Value = made.json().await.unwrap();
    let url = body["url"].as_str().unwrap();
    let path = url.strip_prefix("https://matrix.amt.example").unwrap();
    let (here, there) = (server.url(path), node.url(path));

    let read = call(Method::GET, &there, NONE, None).await;
    assert_eq!(
        (read.status().as_u16(), header(&read, "ETag")),
        (200, first.clone())
    );
    assert_eq!(header(&read, "Content-Type"), "text/plain");
    assert_eq!(read.text().await.unwrap(), "hello");
    let same = call(Method::GET, &here, ("If-None-Match", &first), None).await;
    assert_eq!(same.status(), 304);
    let put = call(Method::PUT, &there, NONE, Some("no tag")).await;
    assert_eq!(put.status(), 400);
    let put = call(Method::PUT, &there, ("If-Match", &first), Some("answer")).await;
    assert_eq!(put.status(), 202);
    let second = header(&put, "ETag");
    assert_ne!(first, second);
    let late = call(Method::PUT, &here, ("If-Match", &first), Some("late")).await;
    assert_eq!(
        (late.status().as_u16(), header(&late, "ETag")),
        (412, second)
    );
    let body: Value = late.json().await.unwrap();
    assert_eq!(body["org.matrix.msc4108.errcode"], "M_CONCURRENT_WRITE");
    let read = call(Method::GET, &here, ("If-None-Match", &first), None).await;
    assert_eq!(read.text().await.unwrap(), "answer");
    let large = "x".repeat(4_097);
    let put = call(Method::PUT, &here, ("If-Match", "\"2\""), Some(&large)).await;
    assert_eq!(put.status(), 413);
    let base = server.url(BY_HEADERS);
    let kind = ("Content-Type", "application/json");
    assert_eq!(call(Method::POST, &base, kind, None).await.status(), 400);
    assert_eq!(call(Method::DELETE, &here, NONE, None).await.status(), 204);
    assert_eq!(call(Method::GET, &there, NONE, None).await.status(), 404);
    assert_eq!(call(Method::DELETE, &there, NONE, None).await.status(), 404);

    // What is over is over, and there are only so many.
    let made = call(Method::POST, &server.url(BY_HEADERS), NONE, Some("x")).await;
    let body: Value = made.json().await.unwrap();
    let path = body["url"].as_str().unwrap().to_owned();
    let here = server.url(path.strip_prefix("https://matrix.amt.example").unwrap());
    let mut database = server.database().await;
    sqlx::query("UPDATE rendezvous SET expires_ts = 1")
        .execute(&mut database)
        .await
        .unwrap();
    assert_eq!(call(Method::GET, &here, NONE, None).await.status(), 404);
    sqlx::query(
        "INSERT INTO rendezvous (rendezvous_id, address, data, modified_ts, expires_ts)
         SELECT gen_random_uuid(), '127.0.0.1', '', 1, 9000000000000 FROM generate_series(1, 100)",
    )
    .execute(&mut database)
    .await
    .unwrap();
    let more = call(Method::POST, &server.url(BY_HEADERS), NONE, Some("x")).await;
    assert_eq!(more.status(), 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_devices_meet_by_tokens_and_none_where_it_is_off() {
    let server = Server::with(CONFIG, None).await;
    let alice = server.user("alice").await;
    let call = async |method: Method, rest: &str, body: Option<Value>| {
        let base = "/../unstable/io.element.msc4388/rendezvous";
        alice.call(method, &format!("{base}{rest}"), body).await
    };
    let (status, body) = call(Method::GET, "", None).await;
    assert_eq!((status, body), (200, json!({ "create_available": true })));
    let (status, made) = call(Method::POST, "", Some(json!({ "data": "hello" }))).await;
    assert_eq!(status, 200, "{made}");
    let id = format!("/{}", made["id"].as_str().unwrap());
    let (_, read) = call(Method::GET, &id, None).await;
    assert_eq!(read["data"], "hello");
    assert_eq!(read["sequence_token"], made["sequence_token"]);
    assert!(read["expires_in_ms"].as_i64().unwrap() <= 60_000);
    let put = json!({ "data": "answer", "sequence_token": made["sequence_token"] });
    let (status, body) = call(Method::PUT, &id, Some(put.clone())).await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = call(Method::PUT, &id, Some(put)).await;
    assert_eq!(
        (status, &body["errcode"]),
        (409, &json!("IO_ELEMENT_MSC4388_CONCURRENT_WRITE"))
    );
    assert_eq!(call(Method::DELETE, &id, None).await.0, 200);
    assert_eq!(call(Method::GET, &id, None).await.0, 404);
    let (_, versions) = alice.get("/../versions").await;
    assert_eq!(versions["unstable_features"]["org.matrix.msc4108"], true);
    assert_eq!(versions["unstable_features"]["org.matrix.msc3814"], true);

    let other = Server::start().await;
    let bob = other.user("bob").await;
    for (base, text) in [(BY_HEADERS, "x"), (BY_BODY, "{\"data\":\"x\"}")] {
        let answer = self::call(Method::POST, &other.url(base), NONE, Some(text)).await;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(
            (status.as_u16(), &body["errcode"]),
            (404, &json!("M_UNRECOGNIZED"))
        );
    }
    let (_, versions) = bob.get("/../versions").await;
    assert!(versions["unstable_features"]["org.matrix.msc4108"].is_null());
}
