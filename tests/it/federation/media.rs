//! Media of one server for users of another.

use std::io::Cursor;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::media::{ask, download, get, parts, upload},
    rig::{
        enc,
        peer::answer_always,
        server::{Folder, Server},
        tls::Tls,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn servers_fetch_media_of_each_other_once_and_keep_it() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let mut one = Server::with_tls(&tls).await;
    let other = Server::with_tls(&tls).await;
    let alice = one.user("alice").await;
    let bob = other.user("bob").await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 241) as u8).collect();
    let mxc = upload(&alice, "?filename=bescheid.pdf", "application/pdf", &bytes).await;
    let avatar = json!({ "avatar_url": mxc });
    alice
        .put(&format!("/profile/{}/avatar_url", enc(&alice.id)), avatar)
        .await;
    let (_, profile) = bob.get(&format!("/profile/{}", enc(&alice.id))).await;
    assert_eq!(profile["avatar_url"], mxc.as_str());

    let path = download(&mxc);
    let answers = futures_util::future::join_all((0..5).map(|_| get(&bob, &path))).await;
    for answer in answers {
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/pdf");
        let disposition = &answer.headers()["content-disposition"];
        assert_eq!(disposition, "attachment; filename=bescheid.pdf");
        assert!(answer.bytes().await.unwrap() == bytes);
    }

    let mut png = Vec::new();
    let image = image::DynamicImage::new_rgb8(900, 900);
    image
        .write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png)
        .unwrap();
    let picture = upload(&alice, "", "image/png", &png).await;
    let (name, id) = parts(&picture);
    let thumbnail =
        format!("/_matrix/client/v1/media/thumbnail/{name}/{id}?width=96&height=96&method=crop");
    assert_eq!(get(&bob, &thumbnail).await.status(), 200);

    let created = ask(
        &alice,
        Method::POST,
        "/_matrix/media/v1/create",
        ("", b"{}".to_vec()),
    )
    .await;
    let created: Value = created.json().await.unwrap();
    let empty = created["content_uri"].as_str().unwrap();
    let answer = get(&bob, &format!("{}?timeout_ms=1", download(empty))).await;
    assert_eq!(answer.status(), 504, "reserved at the peer, not uploaded");

    let missing = format!("/_matrix/client/v1/media/download/{}/missing", one.name);
    assert_eq!(get(&bob, &missing).await.status(), 404);

    one.stop();
    let answer = get(&bob, &path).await;
    assert_eq!(answer.status(), 200, "kept while the peer is away");
    assert_eq!(get(&bob, &missing).await.status(), 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_bad_peers_are_refused() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let limit = "[registration]\nopen = true\n[media]\nmax_upload_bytes = 1000\n";
    let server = Server::with(limit, Some(&tls)).await;
    let alice = server.user("alice").await;
    let part = |headers: &str, body: &str| {
        format!(
            "--b\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--b\r\n{headers}\r\n\r\n{body}"
        )
    };
    let multipart = "multipart/mixed; boundary=b";
    let text = "Content-Type: text/plain";
    for (kind, body, status) in [
        (multipart, part(text, "good\r\n--b--"), 200),
        (multipart, part(text, "it broke off"), 502),
        (
            multipart,
            part(text, &format!("{}\r\n--b--", "x".repeat(1001))),
            413,
        ),
        (
            multipart,
            part("Location: http://127.0.0.1/", "\r\n--b--"),
            502,
        ),
        (
            multipart,
            part("Location: https://10.0.0.1/x", "\r\n--b--"),
            502,
        ),
        (multipart, "--b--".to_owned(), 502),
        (multipart, "x".repeat(200_000), 502),
        ("text/plain", "good".to_owned(), 502),
    ] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let door = answer_always(&tls, answer.into_bytes());
        let path = format!("/_matrix/client/v1/media/download/localhost:{door}/abc");
        let got = get(&alice, &path).await.status().as_u16();
        let shown: String = body.chars().take(120).collect();
        assert_eq!(got, status, "{kind} {shown}");
    }
}
