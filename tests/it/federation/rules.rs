//! Servers that are allowed and denied, at run time.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    client::{
        account::register_with_secret,
        media::{download, get, upload},
    },
    rig::{
        enc, eventually,
        http::{self, Ask as _},
        server::{Folder, Like, Server},
        tls::Tls,
        user::User,
    },
};

/// A server under another name, so that hosts tell it apart.
async fn server(host: &str, more: &str, tls: &Tls) -> Server {
    let more = format!("{}{more}", Like::default().more);
    let like = Like {
        host,
        more: &more,
        ..Like::default()
    };
    Server::like(like, tls).await
}

struct Operator(String, String);

impl Operator {
    async fn of(server: &Server) -> Self {
        let (status, body) = register_with_secret(server, "root", "test secret").await;
        assert_eq!(status, 200, "{body}");
        let token = body["access_token"].as_str().unwrap().to_owned();
        Self(server.url(""), token)
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let http = http::client();
        let request = http.request(method, format!("{}{path}", self.0));
        let request = request.bearer_auth(&self.1).body(body.to_string());
        let answer = request.ask().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json().await.unwrap_or_default(),
        )
    }

    async fn rule(&self, method: Method, list: &str, server: &str, body: Value) -> (u16, Value) {
        let path = format!("/_amtsbote/admin/v1/federation/rules/{list}/{server}");
        self.ask(method, &path, body).await
    }
}

fn text(user: &str, of: &str) -> String {
    format!("{user} of {of}")
}

fn heard(user: &User, what: &str) -> bool {
    let mut seen = user.seen.iter();
    seen.any(|(_, event)| event["content"]["body"] == what)
}

/// An allowed server tells of a join through it, which is no event that is taken as it comes.
async fn tells_of_a_join(other: &Server, one: &Server, (alice, bob, carol): (&User, &User, &User)) {
    let young = bob.create_room(json!({ "preset": "public_chat" })).await;
    alice.join_via(&young, &other.name).await;
    carol.join_via(&young, &other.name).await;
    eventually("the event of a refused server to be noted", async || {
        let log = one.log();
        log.contains("an event of a refused server").then_some(())
    })
    .await;
}

/// What users try with another server, and the status each time.
async fn tried(
    user: &User,
    other: (&User, &str),
    room: &str,
    mxc: &str,
) -> Vec<(&'static str, u16)> {
    let (friend, name) = other;
    let profile = user.get(&format!("/profile/{}", enc(&friend.id))).await.0;
    let alias = enc(&format!("#open:{name}"));
    let join = user.post(&format!("/join/{alias}"), json!({})).await.0;
    let via = user.try_join_via(room, name).await.0;
    let private = user.create_room(json!({ "preset": "private_chat" })).await;
    let invite = format!("/rooms/{}/invite", enc(&private));
    let invite = user.post(&invite, json!({ "user_id": &friend.id })).await.0;
    let directory = format!("/publicRooms?server={}", enc(name));
    let directory = user.get(&directory).await.0;
    let media = get(user, &download(mxc)).await.status().as_u16();
    vec![
        ("profile", profile),
        ("alias", join),
        ("join", via),
        ("invite", invite),
        ("directory", directory),
        ("media", media),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_denied_is_refused_both_ways_until_the_rule_goes() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let one = server("localhost", "", &tls).await;
    let other = server("127.0.0.1", "", &tls).await;
    let root = Operator::of(&one).await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let common = alice
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "common" }))
        .await;
    bob.join(&format!("#common:{}", one.name)).await;
    alice.say(&common, "before").await;
    bob.hears("before").await;
    let open = json!({ "preset": "public_chat", "room_alias_name": "open" });
    let of_bob = bob.create_room(open.clone()).await;
    let of_alice = alice.create_room(open).await;
    let file = upload(&bob, "", "text/plain", b"of bob").await;
    let picture = upload(&alice, "", "text/plain", b"of alice").await;

    let rule = json!({ "reason": "contract ended" });
    let denied = root.rule(Method::PUT, "deny", "127.0.0.1", rule).await;
    assert_eq!(denied.0, 200, "{}", denied.1);
    for (what, status) in tried(&alice, (&bob, &other.name), &of_bob, &file).await {
        assert_eq!(status, 403, "{what}, going out");
    }
    let (_, keys) = alice
        .post("/keys/query", json!({ "device_keys": { &bob.id: [] } }))
        .await;
    assert!(keys["failures"].get(&other.name).is_some(), "{keys}");
    for (what, status) in tried(&bob, (&alice, &one.name), &of_alice, &picture).await {
        assert!([403, 502].contains(&status), "{what}, coming in: {status}");
    }
    let http = http::client();
    let query = one.url(&format!("/_matrix/key/v2/query/{}", other.name));
    let vouched: Value = http.get(query).ask().await.unwrap().json().await.unwrap();
    assert_eq!(vouched, json!({ "server_keys": [] }));
    alice.say(&common, "waits here").await;
    bob.say(&common, "waits there").await;
    let show = format!("/_amtsbote/admin/v1/federation/servers/{}", other.name);
    let (_, shown) = root.ask(Method::GET, &show, json!({})).await;
    assert_eq!(shown, json!({ "server": other.name, "allowed": false }));
    let rules = "/_amtsbote/admin/v1/federation/rules";
    let (_, list) = root.ask(Method::GET, rules, json!({})).await;
    assert_eq!(list["rules"][0]["reason"], "contract ended", "{list}");
    assert_eq!(list["rules"][0]["source"], "database", "{list}");
    let log = one.log();
    for told in [
        "a request of a refused server",
        "a request to a refused server",
    ] {
        let lines = log.lines().filter(|line| line.contains(told));
        assert_eq!(lines.count(), 1, "{told}, once a minute: {log}");
    }

    let (status, _) = root
        .rule(Method::DELETE, "deny", "127.0.0.1", json!({}))
        .await;
    assert_eq!(status, 200);
    bob.hears("waits here").await;
    alice.hears("waits there").await;
    for (what, status) in tried(&alice, (&bob, &other.name), &of_bob, &file).await {
        assert_eq!(status, 200, "{what}, going out again");
    }
    for (what, status) in tried(&bob, (&alice, &one.name), &of_alice, &picture).await {
        assert_eq!(status, 200, "{what}, coming in again");
    }
    let (status, _) = root
        .rule(Method::DELETE, "deny", "127.0.0.1", json!({}))
        .await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_the_configuration_are_read_again_and_shown_to_users() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let rules = "[federation]\nallow = [\"amt.example\"]\n";
    let one = server("localhost", rules, &tls).await;
    let other = server("127.0.0.1", "", &tls).await;
    let root = Operator::of(&one).await;
    let alice = one.user("alice").await;
    let bob = other.user("bob").await;
    let profile = format!("/profile/{}", enc(&bob.id));
    let whitelist = "/_synapse/client/v1/config/federation_whitelist";
    let (status, body) = alice.get(&profile).await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    let (_, shown) = root.ask(Method::GET, whitelist, json!({})).await;
    assert_eq!(
        shown,
        json!({ "whitelist_enabled": true, "whitelist": ["amt.example"] })
    );

    let more = "allow = [\"amt.example\", { server = \"127.0.0.?\", reason = \"test\" }]";
    one.reconfigure("allow = [\"amt.example\"]", more);
    eventually("the peer to be allowed", async || {
        (alice.get(&profile).await.0 == 200).then_some(())
    })
    .await;
    let until = json!({ "until_ts": 1, "reason": "over long ago" });
    let (status, _) = root.rule(Method::PUT, "deny", "127.0.0.1", until).await;
    assert_eq!(status, 200);
    assert_eq!(alice.get(&profile).await.0, 200, "the entry has ended");
    let (status, body) = root
        .rule(Method::PUT, "deny", "127.0.0.1:8448", json!({}))
        .await;
    assert_eq!((status, &body["errcode"]), (400, &json!("M_INVALID_PARAM")));
    let (status, _) = root
        .rule(Method::PUT, "maybe", "127.0.0.1", json!({}))
        .await;
    assert_eq!(status, 404);
    one.reconfigure(more, "allow = [\"not a server\"]");
    eventually("the error to be told", async || {
        one.log()
            .contains("the old configuration stays")
            .then_some(())
    })
    .await;
    assert_eq!(alice.get(&profile).await.0, 200);
    let (_, body) = alice.get("/account/whoami").await;
    assert_eq!(body["user_id"], alice.id.as_str());
    let path = "/_amtsbote/admin/v1/federation/rules";
    let users = Operator(one.url(""), alice.token.clone());
    assert_eq!(users.ask(Method::GET, path, json!({})).await.0, 403);
    assert_eq!(users.ask(Method::GET, whitelist, json!({})).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_with_refused_servers_are_entered_as_the_setting_says() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let rules = "[federation]\ndeny = [\"127.0.0.2\"]\nunlisted_in_room = \"refuse\"\n";
    let one = server("localhost", rules, &tls).await;
    let other = server("127.0.0.1", "", &tls).await;
    let third = server("127.0.0.2", "", &tls).await;
    let mut alice = one.user("alice").await;
    let mut bob = other.user("bob").await;
    let mut carol = third.user("carol").await;
    let room = bob
        .create_room(json!({ "preset": "public_chat", "room_alias_name": "mixed" }))
        .await;
    carol.join(&format!("#mixed:{}", other.name)).await;
    carol.say(&room, "here I am").await;
    bob.hears("here I am").await;

    let path = format!("/join/{}", enc(&format!("#mixed:{}", other.name)));
    let (status, body) = alice.post(&path, json!({})).await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    assert!(
        body["error"].as_str().unwrap().contains("127.0.0.2"),
        "{body}"
    );
    let id = alice.id.clone();
    let left = |event: &Value| {
        event["state_key"] == id.as_str() && event["content"]["membership"] == "leave"
    };
    bob.wait_for("alice to be gone again", left).await;
    let (_, joined) = alice.get("/joined_rooms").await;
    assert_eq!(joined["joined_rooms"], json!([]));

    one.reconfigure("\"refuse\"", "\"warn\"");
    eventually("the room to be entered", async || {
        (alice.post(&path, json!({})).await.0 == 200).then_some(())
    })
    .await;
    assert!(
        one.log().contains("a refused server in a room"),
        "{}",
        one.log()
    );
    tells_of_a_join(&other, &one, (&alice, &bob, &carol)).await;
    for round in ["first", "second"] {
        let (of_carol, of_bob) = (text("carol", round), text("bob", round));
        carol.say(&room, &of_carol).await;
        bob.hears(&of_carol).await;
        // Leans on what carol said.
        bob.say(&room, &of_bob).await;
        alice.hears(&of_bob).await;
        alice.say(&room, &text("alice", round)).await;
        bob.hears(&text("alice", round)).await;
    }
    assert!(
        !heard(&alice, &text("carol", "second")),
        "not as a live event"
    );

    one.reconfigure("deny = [\"127.0.0.2\"]", "deny = []");
    carol.hears(&text("alice", "second")).await;
    eventually("carol to be heard", async || {
        carol.say(&room, "again").await;
        alice.sync(500).await;
        heard(&alice, "again").then_some(())
    })
    .await;
}
