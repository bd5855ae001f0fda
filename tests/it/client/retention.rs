//! Uploads go when nobody has looked at them for long and nothing refers to them any more.

use std::sync::atomic::{AtomicU32, Ordering};

use image::ImageFormat;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use super::media::{ask, download, get, parts, picture, upload};
use crate::rig::{
    appservice::Appservice,
    enc, eventually,
    operator::{Operator, call},
    scripted::Scripted,
    server::{Folder, Server},
    store::Store,
    tls::Tls,
    user::User,
};

const CONFIG: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
                      [media]\nlocal_lifetime_days = 30\npremade_thumbnails = false\n";

static NUMBERS: AtomicU32 = AtomicU32::new(0);

fn number() -> u32 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// A server whose uploads grow old when the test says so.
struct Trial {
    root: Operator,
    database: PgConnection,
    /// Who uploads what nobody needs.
    other: User,
}

impl Trial {
    async fn of(server: &Server) -> Self {
        Self {
            root: Operator::of(server).await,
            database: server.database().await,
            other: server.user("other").await,
        }
    }

    async fn sql(&mut self, sql: &str) {
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        done.execute(&mut self.database).await.unwrap();
    }

    async fn count(&mut self, from: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {from}");
        let count = sqlx::query_scalar(AssertSqlSafe(sql));
        count.fetch_one(&mut self.database).await.unwrap()
    }

    /// Makes everything forty days older, events too, as they came together.
    async fn age(&mut self) {
        const DAYS: i64 = 40 * 86_400_000;
        self.sql(&format!(
            "UPDATE media SET created_ts = created_ts - {DAYS}, uploaded_ts = uploaded_ts - {DAYS},
               last_access_ts = last_access_ts - {DAYS};
             UPDATE event SET origin_ts = origin_ts - {DAYS};
             UPDATE media_sweep SET after_nid = 0, done_ts = 0"
        ))
        .await;
    }

    /// Has a node look for what can go, as it does each minute, and waits until it has done so.
    async fn poke(&mut self) {
        let root = self.root.clone();
        self.poke_at(&root).await;
    }

    /// The same of a node.
    async fn poke_at(&mut self, root: &Operator) {
        let text = format!("poke {}", number());
        let mxc = upload(&self.other, "", "text/plain", text.as_bytes()).await;
        let path = format!("/v1/media/{}", mxc.strip_prefix("mxc://").unwrap());
        let (status, body) = root.ask(Method::DELETE, &path, None).await;
        assert_eq!(status, 200, "{body}");
        // The files go last.
        eventually("files to go", async || {
            (self.count("media_loose").await == 0).then_some(())
        })
        .await;
    }

    /// Makes everything old and waits until what can go is gone; one upload always can.
    async fn sweep(&mut self) {
        let mxc = upload(&self.other, "", "text/plain", b"nobody needs this").await;
        self.age().await;
        self.poke().await;
        eventually("what nobody needs to go", async || {
            let from = format!("media WHERE media_id = '{}'", parts(&mxc).1);
            (self.count(&from).await == 0).then_some(())
        })
        .await;
    }

    /// What an administrator is told that would go.
    async fn told(&self, query: &str) -> (u16, Value) {
        let base = self.root.base.replace("/_synapse", "/_amtsbote");
        let path = format!("/v1/media/unreferenced{query}");
        call(&base, &self.root.token, Method::GET, &path, None).await
    }

    async fn operate(&self, method: Method, path: &str, body: Value) {
        let (status, body) = self.root.ask(method, path, Some(body)).await;
        assert_eq!(status, 200, "{path}: {body}");
    }
}

async fn is_served(user: &User, mxc: &str) -> bool {
    let answer = get(user, &download(mxc)).await;
    let status = answer.status().as_u16();
    assert!([200, 404].contains(&status), "{status}");
    status == 200
}

/// Which of some uploads are there.
async fn there<'a>(user: &User, uploads: &[(&'a str, String)]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for (name, mxc) in uploads {
        if is_served(user, mxc).await {
            found.push(*name);
        }
    }
    found
}

async fn put(user: &User, path: &str, body: Value) -> Value {
    let (status, body) = user.put(path, body).await;
    assert_eq!(status, 200, "{path}: {body}");
    body
}

async fn send(user: &User, room: &str, kind: &str, content: Value) -> String {
    let path = format!("/rooms/{}/send/{kind}/t{}", enc(room), number());
    let body = put(user, &path, content).await;
    body["event_id"].as_str().unwrap().to_owned()
}

async fn redact(user: &User, room: &str, event: &str) {
    let path = format!("/rooms/{}/redact/{}/t{}", enc(room), enc(event), number());
    put(user, &path, json!({})).await;
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

fn cipher() -> Value {
    json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AAAA", "session_id": "s" })
}

async fn small(user: &User) -> String {
    let text = format!("file {}", number());
    upload(user, "", "text/plain", text.as_bytes()).await
}

const MINUTE: i64 = 60_000;

/// Two people name uploads in a room in all ways; the events. `mxc`: the address of each upload.
async fn name_all(
    anna: &User,
    bert: &User,
    room: &str,
    mxc: &impl Fn(&str) -> String,
) -> Vec<String> {
    let shown = json!({
        "msgtype": "m.image", "body": "b", "url": mxc("image"),
        "info": { "thumbnail_url": mxc("thumbnail"), "more": [mxc("image")] },
    });
    let mut events = vec![send(anna, room, "m.room.message", shown).await];
    let formatted = json!({
        "msgtype": "m.text", "body": "b", "format": "org.matrix.custom.html",
        "formatted_body": format!("<img src=\"{}\">", mxc("formatted")),
    });
    events.push(send(bert, room, "m.room.message", formatted).await);
    let reserved = json!({ "msgtype": "m.file", "body": "b", "url": mxc("reserved") });
    events.push(send(anna, room, "m.room.message", reserved).await);
    let reserved = mxc("reserved");
    let (name, id) = parts(&reserved);
    let path = format!("/_matrix/media/v3/upload/{name}/{id}");
    let answer = ask(anna, Method::PUT, &path, ("text/plain", b"late".to_vec())).await;
    assert_eq!(answer.status(), 200);
    let pack = json!({ "images": { "smile": { "url": mxc("state") } } });
    let path = format!("/rooms/{}/state/im.ponies.room_emotes/pack", enc(room));
    let body = put(anna, &path, pack).await;
    events.push(body["event_id"].as_str().unwrap().to_owned());
    let member = json!({ "membership": "join", "avatar_url": mxc("member") });
    let path = format!("/rooms/{}/state/m.room.member/{}", enc(room), enc(&bert.id));
    let body = put(bert, &path, member).await;
    events.push(body["event_id"].as_str().unwrap().to_owned());
    let path = format!("/rooms/{}/state/m.room.avatar", enc(room));
    let body = put(anna, &path, json!({ "url": mxc("of_room") })).await;
    events.push(body["event_id"].as_str().unwrap().to_owned());
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn what_events_name_stays_until_they_are_redacted_or_purged() {
    let server = Server::with(CONFIG, None).await;
    let mut trial = Trial::of(&server).await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.create_room(json!({ "preset": "public_chat" })).await;
    bert.join(&room).await;
    let purged = anna.create_room(json!({})).await;

    let image = upload(&anna, "", "image/png", &picture(40, 40, ImageFormat::Png)).await;
    let (server_name, id) = parts(&image);
    let thumbnail =
        format!("/_matrix/client/v1/media/thumbnail/{server_name}/{id}?width=32&height=32");
    assert_eq!(get(&anna, &thumbnail).await.status(), 200);
    let mut uploads = vec![("image", image)];
    for name in [
        "thumbnail",
        "formatted",
        "state",
        "member",
        "purged",
        "reserved",
        "of_room",
    ] {
        uploads.push((name, small(&anna).await));
    }
    // An id that is named before its bytes are there.
    let answer = ask(
        &anna,
        Method::POST,
        "/_matrix/media/v1/create",
        ("", b"{}".to_vec()),
    )
    .await;
    let answer: Value = answer.json().await.unwrap();
    uploads[6].1 = answer["content_uri"].as_str().unwrap().to_owned();
    let mxc = |name: &str| {
        let found = uploads.iter().find(|(it, _)| *it == name);
        found.unwrap().1.clone()
    };

    let events = name_all(&anna, &bert, &room, &mxc).await;
    let file = json!({ "msgtype": "m.file", "body": "b", "url": mxc("purged") });
    send(&anna, &purged, "m.room.message", file).await;
    // Of no upload: nothing is noted.
    let before = trial.count("media_ref").await;
    let strange = format!("mxc://{}/abc mxc://other.example/x", server.name);
    send(&anna, &room, "m.room.message", text(&strange)).await;
    assert_eq!(trial.count("media_ref").await, before);

    let all: Vec<&str> = uploads.iter().map(|(name, _)| *name).collect();
    for _ in 0..2 {
        trial.sweep().await;
        assert_eq!(there(&bert, &uploads).await, all);
    }
    for event in &events {
        redact(&anna, &room, event).await;
    }
    trial.sweep().await;
    assert_eq!(there(&bert, &uploads).await, ["purged"]);
    let answer = get(&bert, &thumbnail).await;
    assert_eq!(answer.status(), 404);
    let path = format!("/v1/rooms/{}", enc(&purged));
    let body = json!({ "purge": true });
    trial.operate(Method::DELETE, &path, body).await;
    trial.sweep().await;
    assert_eq!(there(&bert, &uploads).await, Vec::<&str>::new());
    // Thumbnails are gone from disk too, and no row is left of any.
    assert_eq!(server.media_files(), 0);
    assert_eq!(trial.count("media_ref").await, 0);
    let row = "media WHERE user_nid IS NOT NULL";
    assert_eq!(trial.count(row).await, 0);
}

/// The first two uploads are in somebody's profile; where the second is.
async fn have_in_profile(user: &User, mxc: &impl Fn(usize) -> String) -> String {
    let profile = format!("/profile/{}", enc(&user.id));
    let avatar = json!({ "avatar_url": mxc(0) });
    put(user, &format!("{profile}/avatar_url"), avatar).await;
    let field = format!("{profile}/org.example.banner");
    let banner = json!({ "org.example.banner": { "url": mxc(1) } });
    put(user, &field, banner).await;
    field
}

/// Account data that names an upload as JSON allows it.
async fn have_escaped(user: &User, path: &str, mxc: &str) {
    let escaped = format!("{{\"url\":\"{}\"}}", mxc.replace('/', "\\/"));
    let path = format!("/_matrix/client/v3{path}");
    let answer = ask(
        user,
        Method::PUT,
        &path,
        ("application/json", escaped.into_bytes()),
    )
    .await;
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_have_in_profiles_and_account_data_stays_until_they_change_it() {
    let server = Server::with(CONFIG, None).await;
    let mut trial = Trial::of(&server).await;
    let anna = server.user("anna").await;
    let room = anna.create_room(json!({})).await;
    let mut uploads = Vec::new();
    for name in [
        "picture", "field", "global", "escaped", "of_room", "later", "safe", "bad", "free",
    ] {
        uploads.push((name, small(&anna).await));
    }
    let mxc = |at: usize| uploads[at].1.clone();
    // In no room, so that no event names it.
    let carla = server.user("carla").await;
    let field = have_in_profile(&carla, &mxc).await;
    let data = |kind: &str| format!("/user/{}/account_data/{kind}", enc(&anna.id));
    let emotes = json!({ "a": [mxc(2)] });
    put(&anna, &data("im.ponies.user_emotes"), emotes).await;
    have_escaped(&anna, &data("org.example.escaped"), &mxc(3)).await;
    let of_room = format!(
        "/user/{}/rooms/{}/account_data/org.example.x",
        enc(&anna.id),
        enc(&room)
    );
    put(&anna, &of_room, json!({ "url": mxc(4) })).await;
    let path = format!(
        "/rooms/{}/send/m.room.message/t{}?org.matrix.msc4140.delay=80000000",
        enc(&room),
        number()
    );
    let body = put(&anna, &path, text(&mxc(5))).await;
    let delay = body["delay_id"].as_str().unwrap().to_owned();
    let protect = format!("/v1/media/protect/{}", parts(&mxc(6)).1);
    trial.operate(Method::POST, &protect, json!({})).await;
    let bad = mxc(7);
    let (name, id) = parts(&bad);
    let withdraw = format!("/v1/media/quarantine/{name}/{id}");
    trial.operate(Method::POST, &withdraw, json!({})).await;

    trial.sweep().await;
    let stays = [
        "picture", "field", "global", "escaped", "of_room", "later", "safe",
    ];
    assert_eq!(there(&anna, &uploads).await, stays);
    let withdrawn = format!("media WHERE media_id = '{id}' AND blob IS NOT NULL");
    assert_eq!(trial.count(&withdrawn).await, 1);

    let avatar = format!("/profile/{}/avatar_url", enc(&carla.id));
    put(&carla, &avatar, json!({ "avatar_url": "" })).await;
    let (status, _) = carla.call(Method::DELETE, &field, None).await;
    assert_eq!(status, 200);
    for kind in ["im.ponies.user_emotes", "org.example.escaped"] {
        put(&anna, &data(kind), json!({})).await;
    }
    put(&anna, &of_room, json!({ "url": "none" })).await;
    let path = format!("/../unstable/org.matrix.msc4140/delayed_events/{delay}/cancel");
    let (status, body) = anna.post(&path, json!({})).await;
    assert_eq!(status, 200, "{body}");
    let unprotect = format!("/v1/media/unprotect/{}", parts(&mxc(6)).1);
    trial.operate(Method::POST, &unprotect, json!({})).await;
    let back = format!("/v1/media/unquarantine/{name}/{id}");
    trial.operate(Method::POST, &back, json!({})).await;
    // The directory of users follows by itself.
    let entries = "user_directory WHERE avatar_url LIKE 'mxc:%'";
    eventually("the directory to follow", async || {
        (trial.count(entries).await == 0).then_some(())
    })
    .await;
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_young_or_was_looked_at_stays() {
    let server = Server::with(CONFIG, None).await;
    let mut trial = Trial::of(&server).await;
    let anna = server.user("anna").await;
    let (looked_at, young) = (small(&anna).await, small(&anna).await);
    let recent = |column: &str, mxc: &str| {
        let now = "(extract(epoch FROM now()) * 1000)::bigint + 20 * 86400000::bigint";
        format!(
            "UPDATE media SET {column} = {now} WHERE media_id = '{}'",
            parts(mxc).1
        )
    };
    trial.sql(&recent("last_access_ts", &looked_at)).await;
    trial.sql(&recent("created_ts", &young)).await;
    // More than are looked at at once, which have nothing on disk.
    let many =
        "INSERT INTO media (server_nid, media_id, user_nid, blob, created_ts, last_access_ts)
                SELECT server_nid, 'm' || n, user_nid, gen_random_uuid(), created_ts, last_access_ts
                FROM media, generate_series(1, 1100) AS n WHERE media_id";
    trial
        .sql(&format!("{many} = '{}'", parts(&looked_at).1))
        .await;
    trial
        .sql("UPDATE media SET last_access_ts = created_ts WHERE media_id ~ '^m[0-9]+$'")
        .await;
    trial.sweep().await;
    assert_eq!(trial.count("media WHERE user_nid IS NOT NULL").await, 2);
    assert!(is_served(&anna, &looked_at).await && is_served(&anna, &young).await);
    // A month later neither is.
    trial.sweep().await;
    assert!(!is_served(&anna, &looked_at).await && !is_served(&anna, &young).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_named_in_the_same_moment_stays() {
    let server = Server::with(CONFIG, None).await;
    let mut trial = Trial::of(&server).await;
    let anna = server.user("anna").await;
    let room = anna.create_room(json!({})).await;
    let uploads = [("file", small(&anna).await)];
    anna.say(&room, "an event").await;
    // As `append_events` does it, in a transaction that has not ended.
    let mut other = server.database().await;
    let named = format!(
        "BEGIN; SELECT refer_media(array_agg(e.room_nid), array_agg(e.event_nid),
           array_agg(m.server_nid), array_agg(m.media_id))
         FROM media m, (SELECT * FROM event ORDER BY event_nid DESC LIMIT 1) e
         WHERE m.media_id = '{}'",
        parts(&uploads[0].1).1
    );
    let named = sqlx::raw_sql(AssertSqlSafe(named));
    named.execute(&mut other).await.unwrap();
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, ["file"]);
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, ["file"]);
    trial.sql("DELETE FROM media_ref").await;
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn attachments_of_encrypted_messages_stay_as_long_as_those_of_their_day() {
    let server = Server::with(CONFIG, None).await;
    let mut trial = Trial::of(&server).await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.create_room(json!({ "preset": "public_chat" })).await;
    bert.join(&room).await;
    let mut uploads = Vec::new();
    // Made so many minutes before or after the message, and some reserved so many before that.
    for (name, minutes, reserved) in [
        ("in time", 0, 0),
        ("a day before", -23 * 60, 0),
        ("more than a day before", -25 * 60, 0),
        ("within the hour after", 55, 0),
        ("more than an hour after", 65, 0),
        ("reserved", -30 * 60, 10 * 60),
        ("reserved long before", -40 * 60, 10 * 60),
    ] {
        let mxc = small(&anna).await;
        let uploaded = match reserved {
            0 => "NULL".to_owned(),
            minutes => format!("created_ts + {}", minutes * MINUTE),
        };
        trial
            .sql(&format!(
                "UPDATE media SET created_ts = created_ts + {} WHERE media_id = '{}';
                 UPDATE media SET uploaded_ts = {uploaded} WHERE media_id = '{1}'",
                minutes * MINUTE,
                parts(&mxc).1
            ))
            .await;
        uploads.push((name, mxc));
    }
    uploads.push(("of bert", small(&bert).await));
    let sent = send(&anna, &room, "m.room.encrypted", cipher()).await;
    trial.sweep().await;
    let stays = [
        "in time",
        "a day before",
        "within the hour after",
        "reserved",
    ];
    assert_eq!(there(&bert, &uploads).await, stays);
    // It is not looked for again while what was found is there.
    assert_eq!(trial.count("media_ref").await, 4);
    trial.sweep().await;
    assert_eq!(there(&bert, &uploads).await, stays);
    // Another one of that time is as good.
    let again = send(&anna, &room, "m.room.encrypted", cipher()).await;
    trial
        .sql(
            "UPDATE event e SET origin_ts = m.origin_ts FROM (
               SELECT min(origin_ts) AS origin_ts FROM event WHERE type_nid = 7) m
             WHERE e.type_nid = 7",
        )
        .await;
    redact(&anna, &room, &sent).await;
    trial.sweep().await;
    assert_eq!(there(&bert, &uploads).await, stays);
    redact(&anna, &room, &again).await;
    trial.sweep().await;
    assert_eq!(there(&bert, &uploads).await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moderators_may_still_see_stays() {
    let config = format!("{CONFIG}[rooms]\nkeep_redacted_days = 7\n");
    let server = Server::with(&config, None).await;
    let mut trial = Trial::of(&server).await;
    let anna = server.user("anna").await;
    let room = anna.create_room(json!({})).await;
    let uploads = [("plain", small(&anna).await)];
    let file = json!({ "msgtype": "m.file", "body": "b", "url": uploads[0].1 });
    let event = send(&anna, &room, "m.room.message", file).await;
    redact(&anna, &room, &event).await;
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, ["plain"]);
    trial.sql("DELETE FROM event_unredacted").await;
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, Vec::<&str>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_of_application_services_and_pictures_of_the_configuration_stay() {
    let bridge = Appservice::start("bridge", "").await;
    let icon = "icon0000000000000000000000000000";
    let config = Appservice::config(&[&bridge]);
    let config = config.replace("[registration]\nopen = true\n", CONFIG);
    let config = format!(
        "{config}[server_notices]\nlocalpart = \"notices\"\n\
         avatar_url = \"mxc://localhost:1/{icon}\"\n"
    );
    // The name has a port of its own.
    let mut server = Server::with(&config, None).await;
    let own = format!("mxc://{}/{icon}", server.name);
    server.reconfigure(&format!("mxc://localhost:1/{icon}"), &own);
    server.kill();
    server.restart().await;
    let mut trial = Trial::of(&server).await;
    let anna = server.user("anna").await;
    let (ghost, bot) = (bridge.ghost(&server, "eve").await, bridge.bot(&server));
    let as_ghost = format!("?user_id={}", enc(&ghost.id));
    let mut uploads = [
        (
            "ghost",
            upload(&bot, &as_ghost, "text/plain", b"ghost").await,
        ),
        ("bot", small(&bot).await),
        ("icon", small(&anna).await),
        ("anna", small(&anna).await),
    ];
    trial
        .sql(&format!(
            "UPDATE media SET media_id = '{icon}' WHERE media_id = '{}'",
            parts(&uploads[2].1).1
        ))
        .await;
    uploads[2].1 = own;
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, ["ghost", "bot", "icon"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_events_of_peers_name_stays() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with(CONFIG, Some(&tls)).await;
    let peer = Scripted::start(&tls).await;
    let mut trial = Trial::of(&server).await;
    let mut anna = server.user("anna").await;
    let bob = peer.user("bob");
    let room = peer.room("11", &bob);
    let (message, state, older, free) = (
        small(&anna).await,
        small(&anna).await,
        small(&anna).await,
        small(&anna).await,
    );
    // In the state and the history that the join brings.
    room.state(&bob, "org.example.pack", json!({ "url": state }));
    let early = room.message(&bob, &format!("early {older}"));
    room.message(&bob, "the last before the join");
    anna.join_via(&room.id, &peer.name).await;
    let history = anna.history(&room.id).await;
    assert!(history.contains(&format!("early {older}")), "{history:?}");
    let said = room.message(&bob, &format!("late {message}"));
    peer.send(&server, &[&said]).await;
    anna.hears(&format!("late {message}")).await;
    assert_eq!(trial.count("media_ref").await, 3);
    // Names that are nobody's are not noted.
    let strange = format!("mxc://{}/", server.name);
    let many: Vec<String> = (0..500).map(|n| format!("{strange}x{n}")).collect();
    let many = many.join(" ");
    let flood = room.message(&bob, &many);
    let end = room.message(&bob, "end");
    peer.send(&server, &[&flood, &end]).await;
    anna.hears("end").await;
    assert_eq!(trial.count("media_ref").await, 3);

    let uploads = [
        ("message", message),
        ("state", state),
        ("older", older),
        ("free", free),
    ];
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, ["message", "state", "older"]);
    for event in [&said, &early] {
        let content = json!({ "redacts": event.id });
        let redaction = room.draft(&bob, ("m.room.redaction", None), content);
        peer.send(&server, &[&room.add(redaction)]).await;
    }
    let end = room.message(&bob, "all redacted");
    peer.send(&server, &[&end]).await;
    anna.hears("all redacted").await;
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, ["state"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_from_before_are_read_and_nothing_goes_until_they_are() {
    let config = format!("{CONFIG}[rooms]\nkeep_redacted_days = 7\n");
    let mut server = Server::with(&config, None).await;
    let mut trial = Trial::of(&server).await;
    let anna = server.user("anna").await;
    let room = anna.create_room(json!({})).await;
    let mut uploads = Vec::new();
    for name in ["message", "state", "redacted", "free"] {
        uploads.push((name, small(&anna).await));
    }
    let file = |at: usize| json!({ "msgtype": "m.file", "body": "b", "url": uploads[at].1 });
    send(&anna, &room, "m.room.message", file(0)).await;
    let path = format!("/rooms/{}/state/m.room.avatar", enc(&room));
    put(&anna, &path, json!({ "url": uploads[1].1 })).await;
    let event = send(&anna, &room, "m.room.message", file(2)).await;
    redact(&anna, &room, &event).await;
    let broken = send(&anna, &room, "m.room.message", text("broken")).await;
    assert_eq!(trial.count("media_ref").await, 3);

    // As a version left it that noted nothing; and one event that cannot be read.
    let body = "(SELECT max(event_nid) FROM event_json)";
    trial
        .sql(&format!(
            "DELETE FROM media_ref;
             INSERT INTO media_ref_todo SELECT room_nid, 0 FROM room;
             CREATE TABLE aside AS SELECT * FROM event_json WHERE event_nid = {body};
             UPDATE event_json SET body = '\\x07' WHERE event_nid = {body}"
        ))
        .await;
    server.kill();
    server.restart().await;
    trial.database = server.database().await;
    eventually("the rooms to be tried", async || {
        let log = server.log();
        log.contains("it is not known which media older events name")
            .then_some(())
    })
    .await;
    trial.age().await;
    trial.poke().await;
    let all = ["message", "state", "redacted", "free"];
    assert_eq!(there(&anna, &uploads).await, all, "{broken}");
    let told = trial.told("").await;
    assert_eq!(told, (200, json!({ "media": [], "unread_rooms": 1 })));

    trial
        .sql(
            "UPDATE event_json j SET body = a.body FROM aside a WHERE a.event_nid = j.event_nid;
             DROP TABLE aside",
        )
        .await;
    server.kill();
    server.restart().await;
    trial.database = server.database().await;
    eventually("the rooms to be read", async || {
        (trial.count("media_ref_todo").await == 0).then_some(())
    })
    .await;
    assert_eq!(trial.count("media_ref").await, 3);
    trial.sweep().await;
    assert_eq!(there(&anna, &uploads).await, all[..3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_nodes_looks_at_a_time() {
    // Nodes share their files.
    let store = Store::start().await;
    let server = Server::with(&format!("{CONFIG}{}", store.config()), None).await;
    let mut trial = Trial::of(&server).await;
    let anna = server.user("anna").await;
    let node = server.node().await;
    let there_too = anna.at(&node);
    let room = anna.create_room(json!({})).await;
    let mut uploads = Vec::new();
    for at in 0..20 {
        let mxc = small(&there_too).await;
        if at % 2 == 0 {
            let file = json!({ "msgtype": "m.file", "body": "b", "url": mxc });
            let user = if at % 4 == 0 { &anna } else { &there_too };
            send(user, &room, "m.room.message", file).await;
            uploads.push(("named", mxc));
        } else {
            uploads.push(("free", mxc));
        }
    }
    trial.age().await;
    // While another holds the search, nothing happens.
    let mut other = server.database().await;
    for sql in ["BEGIN", "SELECT * FROM media_sweep FOR UPDATE"] {
        sqlx::raw_sql(sql).execute(&mut other).await.unwrap();
    }
    let second = Operator {
        base: node.url("/_synapse/admin"),
        ..trial.root.clone()
    };
    trial.poke_at(&second).await;
    assert_eq!(there(&anna, &uploads).await.len(), 20);
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    trial.age().await;
    trial.poke_at(&second).await;
    trial.sweep().await;
    for user in [&anna, &there_too] {
        assert_eq!(there(user, &uploads).await, ["named"; 10]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_see_what_would_go() {
    let server = Server::start().await;
    let mut trial = Trial::of(&server).await;
    let anna = server.user("anna").await;
    let room = anna.create_room(json!({})).await;
    let uploads = [small(&anna).await, small(&anna).await, small(&anna).await];
    send(&anna, &room, "m.room.message", text(&uploads[1])).await;
    let none = json!({ "media": [], "unread_rooms": 0 });
    assert_eq!(trial.told("?older_than_days=30").await, (200, none));
    trial.age().await;
    // It is off, and says no number of days itself.
    for bad in [
        "",
        "?older_than_days=0",
        "?older_than_days=100000",
        "?older_than_days=x",
        "?older_than_days=30&from=-1",
        "?older_than_days=30&limit=0",
        "?older_than_days=30&limit=1001",
    ] {
        let (status, body) = trial.told(bad).await;
        assert_eq!(
            (status, &body["errcode"]),
            (400, &json!("M_INVALID_PARAM")),
            "{bad}"
        );
    }
    let (status, first) = trial.told("?older_than_days=30&limit=1").await;
    assert_eq!((status, first["media"].as_array().unwrap().len()), (200, 1));
    let shown = &first["media"][0];
    assert_eq!(shown["media_id"], parts(&uploads[0]).1);
    assert_eq!(shown["user_id"], json!(anna.id));
    assert!(shown["media_length"].as_i64().unwrap() > 0);
    assert!(shown["created_ts"].is_i64() && shown["last_access_ts"].is_i64());
    let next = first["next_token"].as_i64().unwrap();
    let (_, second) = trial
        .told(&format!("?older_than_days=30&from={next}"))
        .await;
    let ids: Vec<&Value> = second["media"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["media_id"])
        .collect();
    assert_eq!(ids, [parts(&uploads[2]).1]);
    assert!(second.get("next_token").is_none(), "{second}");
    assert_eq!(
        trial.told("?older_than_days=50").await.1["media"],
        json!([])
    );
    // Nothing has gone, and nobody else is told.
    trial.poke().await;
    for mxc in &uploads {
        assert!(is_served(&anna, mxc).await);
    }
    let base = server.url("/_amtsbote/admin");
    let path = "/v1/media/unreferenced?older_than_days=30";
    let (status, _) = call(&base, &anna.token, Method::GET, path, None).await;
    assert_eq!(status, 403);
}
