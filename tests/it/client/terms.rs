//! Terms that users accept.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    enc, eventually,
    operator::Operator,
    pages,
    server::{Folder, Server},
    user::{self, User},
};

const BASE: &str = "https://matrix.amt.example";
const OPEN: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
    [server_notices]\nlocalpart = \"mitteilungen\"\nauto_join = false\n\
    [well_known]\nclient = \"https://matrix.amt.example/\"\n";
/// Nothing to accept yet.
const NONE: &str = "[rooms]\nencryption = \"off\"\n";

/// One policy in two languages, one of them in a file.
fn policy(folder: &Folder, more: &str) -> String {
    let file = folder.0.join("privacy.txt");
    std::fs::write(&file, "# Your <data>\nWe keep\nlittle.\n\nAnd not long.\n").unwrap();
    format!(
        "[terms]\n{more}[[terms.policies]]\nid = \"privacy_policy\"\nversion = \"1\"\n\
         texts.de = {{ name = \"Datenschutz\", url = \"https://amt.example/ds?a=1&b=2\" }}\n\
         texts.en = {{ name = \"Privacy & you\", file = \"{}\" }}\n",
        file.display()
    )
}

/// The path of a link that a client was given.
fn path(answer: &(u16, Value)) -> String {
    let (status, body) = answer;
    assert_eq!(
        (*status, &body["errcode"]),
        (403, &json!("M_CONSENT_NOT_GIVEN")),
        "{body}"
    );
    let link = body["consent_uri"].as_str().unwrap();
    link.strip_prefix(BASE).unwrap().to_owned()
}

async fn try_say(user: &User, room: &str, txn: &str) -> (u16, Value) {
    let path = format!("/rooms/{}/send/m.room.message/{txn}", enc(room));
    let body = json!({ "msgtype": "m.text", "body": "x" });
    user.put(&path, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_registers_accepts_the_terms() {
    let folder = Folder::new();
    let server = Server::with(&format!("{OPEN}{}", policy(&folder, "")), None).await;
    let admin = Operator::of(&server).await;
    let mut wish = json!({ "username": "anna", "password": "password of anna" });
    let (status, body) = user::register(&server.url(""), &wish).await;
    assert_eq!(status, 401, "{body}");
    assert_eq!(body["flows"], json!([{ "stages": ["m.login.terms"] }]));
    let shown = json!({ "m.login.terms": { "policies": { "privacy_policy": {
        "version": "1",
        "de": { "name": "Datenschutz", "url": "https://amt.example/ds?a=1&b=2" },
        "en": {
            "name": "Privacy & you",
            "url": "https://matrix.amt.example/_matrix/consent/privacy_policy/en",
        },
    } } } });
    assert_eq!(body["params"], shown);
    wish["auth"] = json!({ "type": "m.login.dummy", "session": body["session"] });
    let (status, body) = user::register(&server.url(""), &wish).await;
    assert_eq!((status, &body["errcode"]), (401, &json!("M_UNRECOGNIZED")));
    wish["auth"] = json!({ "type": "m.login.terms", "session": body["session"] });
    let (status, body) = user::register(&server.url(""), &wish).await;
    assert_eq!(status, 200, "{body}");

    let base = server.url("/_amtsbote/admin");
    let in_house = Operator { base, ..admin };
    let anna = body["user_id"].as_str().unwrap();
    let told = in_house.get(&format!("/v1/users/{anna}/terms")).await;
    assert_eq!(told["consent_version"], "1");
    let accepted = &told["accepted"][0];
    assert_eq!(
        (&accepted["policy"], &accepted["version"]),
        (&json!("privacy_policy"), &json!("1"))
    );
    assert!(accepted["accepted_ts"].as_i64().unwrap() > 0);
    let told = in_house
        .get(&format!("/v1/users/{}/terms", in_house.id))
        .await;
    assert_eq!(told, json!({ "consent_version": null, "accepted": [] }));
    let (status, _) = in_house
        .ask(Method::GET, "/v1/users/@nobody:x/terms", None)
        .await;
    assert_eq!(status, 404);

    // Whoever wants to reads the texts.
    let page = pages::open(&server, "/_matrix/consent", "de-AT, en;q=0.5").await;
    assert_eq!(page.status, 200);
    assert!(page.html.contains("<html lang=\"de\">"), "{}", page.html);
    assert_eq!(page.links(), ["https://amt.example/ds?a=1&b=2"]);
    let page = pages::open(&server, "/_matrix/consent", "en").await;
    let link = &page.links()[0];
    assert!(!page.html.contains("<form"), "{}", page.html);
    let page = pages::open(&server, link.strip_prefix(BASE).unwrap(), "en").await;
    assert_eq!(page.status, 200);
    for part in [
        "Privacy &amp; you",
        "<h2>Your &lt;data&gt;</h2>",
        "<p>We keep little.</p><p>And not long.</p>",
    ] {
        assert!(page.html.contains(part), "{part} in {}", page.html);
    }
    for none in ["privacy_policy/de", "privacy_policy/fr", "other/en"] {
        let page = pages::open(&server, &format!("/_matrix/consent/{none}"), "en").await;
        assert_eq!(page.status, 404, "{none}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn who_has_not_accepted_the_terms_reads_and_leaves_only() {
    let folder = Folder::new();
    let mut server = Server::with(&format!("{OPEN}{NONE}"), None).await;
    let admin = Operator::of(&server).await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = anna.create_room(json!({ "preset": "public_chat" })).await;
    let other = anna.create_room(json!({ "preset": "public_chat" })).await;
    bert.join(&other).await;
    let event = anna.say(&room, "before").await;
    let missing = anna.get("/../../consent").await;
    assert_eq!(
        (missing.0, &missing.1["errcode"]),
        (404, &json!("M_UNRECOGNIZED"))
    );

    server.reconfigure(NONE, &policy(&folder, "required = true\n"));
    server.stop();
    server.restart().await;
    let link = path(&try_say(&anna, &room, "1").await);
    let of_room = |what: &str| format!("/rooms/{}/{what}", enc(&room));
    for (method, refused) in [
        (Method::POST, "/createRoom".to_owned()),
        (Method::POST, format!("/join/{}", enc(&other))),
        (Method::POST, of_room("join")),
        (Method::POST, format!("/knock/{}", enc(&other))),
        (Method::POST, of_room("invite")),
        (Method::PUT, of_room("state/m.room.topic")),
    ] {
        let body = Some(json!({ "user_id": bert.id }));
        let answer = anna.call(method, &refused, body).await;
        assert_eq!(path(&answer), link, "{refused}");
    }
    for (method, allowed) in [
        (Method::GET, "/sync?timeout=0".to_owned()),
        (Method::GET, "/account/whoami".to_owned()),
        (Method::GET, of_room("state")),
        (Method::PUT, of_room(&format!("redact/{}/1", enc(&event)))),
        (Method::POST, format!("/rooms/{}/leave", enc(&other))),
    ] {
        let (status, body) = anna.call(method, &allowed, Some(json!({}))).await;
        assert_eq!(status, 200, "{allowed}: {body}");
    }

    // The link is good for its reader only, and accepts nothing by itself.
    let form = |agreed: bool, of: &str, version: &str| {
        let (_, query) = link.split_once('?').unwrap();
        let mut fields: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        fields[0].1 = of.to_owned();
        fields.push(("v".to_owned(), version.to_owned()));
        if agreed {
            fields.push(("agreed".to_owned(), "on".to_owned()));
        }
        fields
    };
    let send = async |fields: Vec<(String, String)>| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(a, b)| (&**a, &**b)).collect();
        pages::send(&server, "/_matrix/consent", &fields).await
    };
    let page = pages::open(&server, &link, "en").await;
    assert_eq!((page.status, &*page.hidden("v")), (200, "1"));
    assert_eq!(page.hidden("u"), "anna");
    assert_eq!(send(form(true, "bert", "1")).await.status, 403);
    assert_eq!(send(form(true, "", "1")).await.status, 403);
    assert_eq!(send(form(true, "\"><b>", "1")).await.status, 403);
    let unchecked = send(form(false, "anna", "1")).await;
    assert_eq!(unchecked.status, 400);
    assert!(
        unchecked.html.contains("role=\"alert\""),
        "{}",
        unchecked.html
    );
    assert_eq!(send(form(true, "anna", "0")).await.status, 409);
    path(&try_say(&anna, &room, "2").await);
    assert_eq!(send(form(true, "anna", "1")).await.status, 200);
    assert_eq!(try_say(&anna, &room, "2").await.0, 200);
    let page = pages::open(&server, &link, "en").await;
    assert!(!page.html.contains("<form"), "{}", page.html);
    path(&try_say(&bert, &other, "1").await);

    // A new version is accepted anew; the old acceptance stays on record.
    server.reconfigure("version = \"1\"", "version = \"2\"");
    server.stop();
    server.restart().await;
    assert_eq!(path(&try_say(&anna, &room, "3").await), link);
    let base = server.url("/_amtsbote/admin");
    let in_house = Operator { base, ..admin };
    let told = in_house.get(&format!("/v1/users/{}/terms", anna.id)).await;
    assert_eq!(told["consent_version"], Value::Null);
    assert_eq!(told["accepted"][0]["version"], "1");
    // Who is erased accepted nothing.
    let mut end = json!({ "erase": true, "auth": crate::rig::mailbox::password(&anna) });
    assert_eq!(anna.post("/account/deactivate", end.take()).await.0, 200);
    let told = in_house.get(&format!("/v1/users/{}/terms", anna.id)).await;
    assert_eq!(told["accepted"], json!([]));
    assert_eq!(pages::open(&server, &link, "en").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_accepted_the_terms_is_told_so_once() {
    let folder = Folder::new();
    let mut server = Server::with(&format!("{OPEN}{NONE}"), None).await;
    let mut anna = server.user("anna").await;
    anna.sync(0).await;
    server.reconfigure(NONE, &policy(&folder, "required = true\nnotice = true\n"));
    server.stop();
    server.restart().await;
    let room = {
        let anna = tokio::sync::Mutex::new(&mut anna);
        let invited = eventually("an invitation", async || {
            let body = anna.lock().await.sync(1_000).await;
            let invited = body["rooms"]["invite"].as_object()?;
            invited.keys().next().cloned()
        });
        invited.await
    };
    anna.join(&room).await;
    let told = anna.wait_for("a notice", |event| event["type"] == "m.room.message");
    let told = told.await;
    let text = told["content"]["body"].as_str().unwrap();
    let mut words = text.split_whitespace();
    let link = words.find(|word| word.starts_with(BASE)).unwrap();
    assert_eq!(
        link,
        format!("{BASE}{}", path(&try_say(&anna, &room, "1").await))
    );
    let before = anna.history(&room).await;
    server.stop();
    server.restart().await;
    anna.sync(0).await;
    assert_eq!(anna.history(&room).await, before);
}
