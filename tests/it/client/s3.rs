//! Media in an object store.

use image::ImageFormat;
use reqwest::{Method, header::RANGE};
use uuid::Uuid;

use super::media::{ask, download, get, parts, picture, upload};
use crate::rig::{
    enc, eventually,
    http::{self, Ask as _},
    operator::Operator,
    server::Server,
    store::Store,
    user::User,
};

const SETTINGS: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
                        [media]\npremade_thumbnails = false\n";

async fn part(server: &Server, user: &User, mxc: &str, range: &str) -> Vec<u8> {
    let request = http::client().get(server.url(&download(mxc)));
    let request = request.bearer_auth(&user.token).header(RANGE, range);
    let answer = request.ask().await.unwrap();
    assert_eq!(answer.status(), 206);
    answer.bytes().await.unwrap().to_vec()
}

async fn whole(user: &User, mxc: &str) -> Vec<u8> {
    let answer = get(user, &download(mxc)).await;
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

/// More than fits into two parts, and nothing that comes twice.
fn large() -> Vec<u8> {
    (0..5_000_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_in_the_store_and_every_node_has_them() {
    let store = Store::start().await;
    let config = format!("{SETTINGS}{}", store.config());
    let server = Server::with(&config, None).await;
    let alice = server.user("alice").await;
    let small = upload(&alice, "", "text/plain", b"0123456789").await;
    let large = large();
    let many = upload(&alice, "", "text/plain", &large).await;
    let empty = upload(&alice, "", "text/plain", b"").await;
    let image = picture(100, 100, ImageFormat::Png);
    let image = upload(&alice, "", "image/png", &image).await;
    assert_eq!(store.keys().await.len(), 4);
    assert_eq!(server.media_files(), 0, "nothing stays here");

    let node = server.node().await;
    for user in [&alice, &alice.at(&node)] {
        assert_eq!(whole(user, &small).await, b"0123456789");
        assert!(whole(user, &many).await == large);
        assert_eq!(whole(user, &empty).await, b"");
    }
    assert_eq!(part(&node, &alice, &small, "bytes=3-5").await, b"345");
    let edge = 8 << 20;
    let over = part(
        &server,
        &alice,
        &many,
        &format!("bytes={}-{}", edge - 2, edge + 1),
    )
    .await;
    assert_eq!(over, large[edge - 2..=edge + 1]);
    let (name, id) = parts(&image);
    let thumbnail = format!("/_matrix/client/v1/media/thumbnail/{name}/{id}?width=32&height=32");
    assert_eq!(get(&alice.at(&node), &thumbnail).await.status(), 200);
    assert_eq!(store.keys().await.len(), 5);
    assert_eq!(node.media_files() + server.media_files(), 0);

    let root = Operator::of(&server).await;
    let path = format!("/v1/users/{}/media", enc(&alice.id));
    let (status, body) = root.ask(Method::DELETE, &path, None).await;
    assert_eq!(status, 200, "{body}");
    eventually("the store to be empty", async || {
        store.keys().await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_off_no_row_names_what_is_not_there() {
    let store = Store::start().await;
    let config = format!("{SETTINGS}{}", store.config());
    let mut server = Server::with(&config, None).await;
    let alice = server.user("alice").await;
    let large = large();
    let before = upload(&alice, "", "text/plain", b"before").await;
    let mut uploads = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let url = server.url("/_matrix/media/v3/upload");
        let request = http::client().post(url).bearer_auth(&alice.token);
        uploads.spawn(request.body(large.clone()).ask());
    }
    // In the midst of them.
    eventually("one of them to be done", async || {
        (store.keys().await.len() > 1).then_some(())
    })
    .await;
    server.kill();
    while uploads.join_next().await.is_some() {}
    server.restart().await;
    let mut database = server.database().await;
    let owned = "SELECT blob FROM media WHERE blob IS NOT NULL";
    let owned: Vec<Uuid> = sqlx::query_scalar(owned)
        .fetch_all(&mut database)
        .await
        .unwrap();
    let keys = store.keys().await;
    for blob in &owned {
        let key = format!("media/{}", blob.simple());
        assert!(keys.contains(&key), "{key} of {keys:?}");
    }
    // What nobody owns is noted, and goes in its time.
    let loose = "SELECT blob FROM media_loose";
    let loose: Vec<Uuid> = sqlx::query_scalar(loose)
        .fetch_all(&mut database)
        .await
        .unwrap();
    for key in &keys {
        let known = owned.iter().chain(&loose);
        let mut known = known.map(|blob| format!("media/{}", blob.simple()));
        assert!(known.any(|known| known == *key), "{key}");
    }
    assert_eq!(whole(&alice, &before).await, b"before");
    let answer = ask(
        &alice,
        Method::POST,
        "/_matrix/media/v3/upload",
        ("text/plain", large),
    )
    .await;
    assert_eq!(answer.status(), 200);
}
