//! Media that administrators withdraw, protect, list and delete.

use image::ImageFormat;
use reqwest::Method;
use serde_json::{Value, json};

use super::media::{ask, download, get, parts, picture, refused, upload};
use crate::rig::{
    enc, eventually,
    operator::Operator,
    server::{Folder, Server},
    store::Store,
    tls::Tls,
    user::User,
};

const REGISTRATION: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n";

async fn is_served(user: &User, mxc: &str) -> bool {
    let answer = get(user, &download(mxc)).await;
    let status = answer.status().as_u16();
    assert!([200, 404].contains(&status), "{status}");
    status == 200
}

async fn has_thumbnail(user: &User, mxc: &str) -> bool {
    let (server, id) = parts(mxc);
    let path = format!("/_matrix/client/v1/media/thumbnail/{server}/{id}?width=32&height=32");
    get(user, &path).await.status() == 200
}

async fn post(root: &Operator, path: &str) -> Value {
    let (status, body) = root.ask(Method::POST, path, Some(json!({}))).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// `SERVER/ID` of an address.
fn address(mxc: &str) -> &str {
    mxc.strip_prefix("mxc://").unwrap()
}

async fn show(user: &User, room: &str, txn: &str, content: Value) {
    let path = format!("/rooms/{}/send/m.room.message/{txn}", enc(room));
    let (status, body) = user.put(&path, content).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withdrawn_is_gone_everywhere_and_comes_back_when_it_was_a_mistake() {
    // Nodes share their files.
    let store = Store::start().await;
    let config = format!("{REGISTRATION}{}", store.config());
    let server = Server::with(&config, None).await;
    let root = Operator::of(&server).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let node = server.node().await;
    let there = bob.at(&node);

    let bytes = picture(40, 40, ImageFormat::Png);
    let bad = upload(&alice, "", "image/png", &bytes).await;
    let same = upload(&bob, "", "image/png", &bytes).await;
    let good = upload(&alice, "", "image/png", &picture(41, 40, ImageFormat::Png)).await;
    assert!(has_thumbnail(&bob, &bad).await);

    // Only administrators may.
    let path = format!("/v1/media/quarantine/{}", address(&bad));
    let (status, _) = crate::rig::operator::call(
        &root.base,
        &alice.token,
        Method::POST,
        &path,
        Some(json!({})),
    )
    .await;
    assert_eq!(status, 403);
    post(&root, &path).await;
    for mxc in [&bad, &same] {
        assert!(!is_served(&bob, mxc).await);
        assert!(!is_served(&there, mxc).await);
        assert!(!has_thumbnail(&bob, mxc).await);
    }
    assert!(is_served(&bob, &good).await);
    // The same bytes once more.
    let again = upload(&bob, "", "image/png", &bytes).await;
    assert!(!is_served(&alice, &again).await);

    let info = root.get(&format!("/v1/media/{}", address(&bad))).await;
    assert_eq!(info["media_info"]["quarantined_by"], json!(root.id));
    assert_eq!(info["media_info"]["user_id"], json!(alice.id));
    let listed = crate::rig::operator::call(
        &server.url("/_amtsbote/admin"),
        &root.token,
        Method::GET,
        "/v1/media/quarantined?limit=2",
        None,
    )
    .await;
    assert_eq!(listed.1["total"], 3);
    assert_eq!(listed.1["next_token"], 2);
    assert_eq!(listed.1["media"][0]["media_id"], parts(&again).1);

    let path = format!("/v1/media/unquarantine/{}", address(&bad));
    post(&root, &path).await;
    for mxc in [&bad, &same, &again] {
        assert!(is_served(&there, mxc).await);
    }

    // What is protected stays when all of a user goes.
    post(&root, &format!("/v1/media/protect/{}", parts(&good).1)).await;
    let path = format!("/v1/user/{}/media/quarantine", enc(&alice.id));
    let done = post(&root, &path).await;
    assert_eq!(done, json!({ "num_quarantined": 3 }));
    assert!(is_served(&bob, &good).await);
    assert!(!is_served(&bob, &bad).await);
    post(&root, &format!("/v1/media/unprotect/{}", parts(&good).1)).await;
    assert_eq!(post(&root, &path).await, json!({ "num_quarantined": 1 }));
    assert!(!is_served(&bob, &good).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_room_shows_is_withdrawn_and_what_peers_have_before_it_comes() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let (one, two) = (Server::with_tls(&tls).await, Server::with_tls(&tls).await);
    let boss = Operator::of(&one).await;
    let (alice, eve) = (one.user("alice").await, two.user("eve").await);
    let known = upload(&eve, "", "text/plain", b"known").await;
    let unknown = upload(&eve, "", "text/plain", b"unknown").await;
    let own = upload(&alice, "", "text/plain", b"own").await;
    let small = upload(&alice, "", "text/plain", b"small").await;
    let avatar = upload(&alice, "", "text/plain", b"avatar").await;
    assert!(is_served(&alice, &known).await);

    let room = alice.create_room(json!({})).await;
    let file = |url: &str, thumbnail: &str| {
        json!({
            "msgtype": "m.image", "body": "b", "url": url,
            "info": { "thumbnail_url": thumbnail },
        })
    };
    show(&alice, &room, "1", file(&own, &small)).await;
    show(&alice, &room, "2", file(&known, "mxc://a/not an id")).await;
    show(&alice, &room, "3", file(&unknown, "nothing")).await;
    let path = format!(
        "/rooms/{}/state/m.room.member/{}",
        enc(&room),
        enc(&alice.id)
    );
    let member = json!({ "membership": "join", "avatar_url": avatar });
    assert_eq!(alice.put(&path, member).await.0, 200);

    let path = format!("/v1/room/{}/media", enc(&room));
    let shown = boss.get(&path).await;
    let sorted = |list: &mut Vec<String>| list.sort();
    let mut local = vec![own.clone(), small.clone()];
    let mut remote = vec![known.clone(), unknown.clone()];
    sorted(&mut local);
    sorted(&mut remote);
    assert_eq!(shown, json!({ "local": local, "remote": remote }));
    let done = post(&boss, &format!("{path}/quarantine")).await;
    assert_eq!(done, json!({ "num_quarantined": 4 }));
    for mxc in [&own, &small, &known, &unknown] {
        assert!(!is_served(&alice, mxc).await, "{mxc}");
        // Not to peers either.
        assert_eq!(is_served(&eve, mxc).await, mxc.contains(&two.name), "{mxc}");
    }
    assert!(is_served(&alice, &avatar).await);
    // What was never here may come after all.
    let path = format!("/v1/media/unquarantine/{}", address(&unknown));
    post(&boss, &path).await;
    assert!(is_served(&alice, &unknown).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_frees_its_files_and_what_was_withdrawn_stays_unwelcome() {
    // A thumbnail that is made while its image goes stays loose for a day.
    let config = "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
                  [media]\npremade_thumbnails = false\n";
    let server = Server::with(config, None).await;
    let root = Operator::of(&server).await;
    let alice = server.user("alice").await;
    let bytes = picture(40, 40, ImageFormat::Png);
    let one = upload(&alice, "", "image/png", &bytes).await;
    let two = upload(&alice, "", "text/plain", b"two").await;
    let bad = upload(&alice, "", "text/plain", b"bad").await;
    assert!(has_thumbnail(&alice, &one).await);
    post(&root, &format!("/v1/media/quarantine/{}", address(&bad))).await;

    let path = format!("/v1/media/{}", address(&one));
    let (status, body) = root.ask(Method::DELETE, &path, None).await;
    let deleted = json!({ "deleted_media": [parts(&one).1], "total": 1 });
    assert_eq!((status, body), (200, deleted));
    assert!(!is_served(&alice, &one).await);

    let path = format!("/v1/users/{}/media", enc(&alice.id));
    let listed = root.get(&path).await;
    assert_eq!(listed["total"], 2);
    assert_eq!(listed["media"][0]["media_length"], 3);
    let (status, body) = root.ask(Method::DELETE, &path, None).await;
    assert_eq!((status, &body["total"]), (200, &json!(2)), "{body}");
    assert!(!is_served(&alice, &two).await);
    let again = upload(&alice, "", "text/plain", b"bad").await;
    assert!(!is_served(&alice, &again).await, "the hash is remembered");

    // All files are gone but for the last one.
    let mut database = server.database().await;
    eventually("files to be deleted", async || {
        let loose = "SELECT count(*) FROM media_loose";
        let count: i64 = sqlx::query_scalar(loose)
            .fetch_one(&mut database)
            .await
            .unwrap();
        (count == 0 && server.media_files() == 1).then_some(())
    })
    .await;
    let answer = ask(&alice, Method::GET, &download(&two), ("", Vec::new())).await;
    refused(answer, 404, "M_NOT_FOUND").await;
}
