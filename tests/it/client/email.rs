//! E-mail: addresses of accounts, new passwords, and mails about what is unread.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::rig::{
    enc, eventually,
    http::{self, Ask as _},
    mailbox::{Mailbox, at, config, link, password, submit},
    server::{Folder, Server},
    tls::Tls,
    user::User,
};

/// POST of somebody without a session.
async fn post(server: &Server, path: &str, body: &Value) -> (u16, Value) {
    let http = http::client();
    let url = server.url(&format!("/_matrix/client/v3{path}"));
    let answer = http.post(url).body(body.to_string()).ask().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

/// The page that a link leads to.
async fn look(server: &Server, link: &str) -> reqwest::Response {
    let http = http::client();
    http.get(at(server, link)).ask().await.unwrap()
}

/// Asks for a mail.
async fn ask(server: &Server, what: &str, secret: &str, email: &str, attempt: u32) -> (u16, Value) {
    let asked = json!({ "client_secret": secret, "email": email, "send_attempt": attempt });
    post(server, &format!("{what}/email/requestToken"), &asked).await
}

fn refused(answer: &(u16, Value), status: u16, errcode: &str) {
    assert_eq!(
        (answer.0, answer.1["errcode"].as_str()),
        (status, Some(errcode)),
        "{}",
        answer.1
    );
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn an_address_is_proved_by_its_reader_and_belongs_to_one_account() {
    let mailbox = Mailbox::start();
    let server = Server::with(&config(&mailbox), None).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (_, body) = alice.get("/capabilities").await;
    assert_eq!(body["capabilities"]["m.3pid_changes"]["enabled"], true);

    let what = "/account/3pid";
    let (status, first) = ask(&server, what, "secret", " Alice@AMT.example", 1).await;
    assert_eq!(status, 200, "{first}");
    // The same once more is no other mail; a greater number is, and makes the first link void.
    assert_eq!(
        ask(&server, what, "secret", "alice@amt.example", 1).await.1,
        first
    );
    let old = mailbox.get("alice@amt.example", 1).await;
    assert_eq!(
        ask(&server, what, "secret", "alice@amt.example", 2).await.1,
        first
    );
    let mail = mailbox.get("alice@amt.example", 2).await;
    assert_eq!(
        mail["headers"]["from"],
        "Amt Müsterstadt <matrix@amt.example>"
    );
    assert_eq!(
        mail["headers"]["subject"],
        "Bote: E-Mail-Adresse bestätigen / Confirm your e-mail address"
    );
    assert_eq!(mail["headers"]["auto-submitted"], "auto-generated");
    assert!(
        mail["html"]
            .as_str()
            .unwrap()
            .contains(&link(&mail).replace('&', "&amp;"))
    );
    let add = |secret: &str| json!({ "sid": first["sid"], "client_secret": secret, "auth": password(&alice) });
    refused(
        &alice.post("/account/3pid/add", add("secret")).await,
        400,
        "M_THREEPID_AUTH_FAILED",
    );

    // Who only looks proves nothing.
    let page = look(&server, &link(&mail)).await;
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = page.text().await.unwrap();
    assert!(
        page.contains("<form method=\"post\">") && !page.contains("<script"),
        "{page}"
    );
    refused(
        &alice.post("/account/3pid/add", add("secret")).await,
        400,
        "M_THREEPID_AUTH_FAILED",
    );
    assert_eq!(submit(&server, &link(&old)).await.0, 400);
    assert_eq!(submit(&server, &link(&mail)).await.0, 200);

    refused(
        &alice.post("/account/3pid/add", add("other")).await,
        400,
        "M_THREEPID_AUTH_FAILED",
    );
    let (status, body) = alice
        .post(
            "/account/3pid/add",
            json!({ "sid": first["sid"], "client_secret": "secret" }),
        )
        .await;
    assert_eq!(
        (status, &body["flows"][0]["stages"][0]),
        (401, &json!("m.login.password"))
    );
    assert_eq!(
        alice.post("/account/3pid/add", add("secret")).await,
        (200, json!({}))
    );
    refused(
        &alice.post("/account/3pid/add", add("secret")).await,
        400,
        "M_THREEPID_AUTH_FAILED",
    );
    let (_, body) = alice.get("/account/3pid").await;
    let shown = &body["threepids"][0];
    assert_eq!(
        (&shown["medium"], &shown["address"]),
        (&json!("email"), &json!("alice@amt.example"))
    );
    assert!(shown["validated_at"].as_i64().unwrap() <= shown["added_at"].as_i64().unwrap());

    // Nobody else has it, and its owner logs in by it.
    refused(
        &ask(&server, what, "bob", "ALICE@amt.example", 1).await,
        400,
        "M_THREEPID_IN_USE",
    );
    let mut login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.thirdparty", "medium": "email", "address": "Alice@amt.example" },
        "password": "password of alice",
    });
    let (status, body) = post(&server, "/login", &login).await;
    assert_eq!((status, &body["user_id"]), (200, &json!(alice.id)));
    login["identifier"]["address"] = json!("nobody@amt.example");
    refused(&post(&server, "/login", &login).await, 403, "M_FORBIDDEN");

    // Until it is given back.
    let gone = json!({ "medium": "email", "address": "alice@AMT.example" });
    assert_eq!(bob.post("/account/3pid/delete", gone.clone()).await.0, 200);
    assert_eq!(
        alice.get("/account/3pid").await.1["threepids"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let answer = alice.post("/account/3pid/delete", gone).await;
    assert_eq!(
        answer,
        (200, json!({ "id_server_unbind_result": "no-support" }))
    );
    assert_eq!(
        alice.get("/account/3pid").await.1,
        json!({ "threepids": [] })
    );
    mailbox.add(&server, &bob, "alice@amt.example").await;
    let end = json!({ "auth": password(&bob) });
    assert_eq!(bob.post("/account/deactivate", end).await.0, 200);
    mailbox.add(&server, &alice, "alice@amt.example").await;
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn who_plays_with_links_and_addresses_gets_nowhere() {
    let mailbox = Mailbox::start();
    let more = format!(
        "{}next_link_hosts = [\"chat.amt.example\"]\n",
        config(&mailbox)
    );
    let server = Server::with(&more, None).await;
    let alice = server.user("alice").await;
    let what = "/account/3pid";
    let long = format!("{}@amt.example", "a".repeat(1 << 20));
    for bad in [
        "a@amt.example\r\nBcc: eve@evil.example",
        "a\r\nBcc: eve@evil.example",
        "eve@evil.example,a@amt.example",
        "\"a\\\"\"@amt.example",
        "a@[127.0.0.1]",
        long.as_str(),
    ] {
        refused(
            &ask(&server, what, "s", bad, 1).await,
            400,
            "M_INVALID_PARAM",
        );
    }
    for bad in [
        "https://evil.example/",
        "javascript:alert(1)",
        "//chat.amt.example",
        "https://chat.amt.example@evil.example/",
    ] {
        let mut asked =
            json!({ "client_secret": "s", "email": "a@amt.example", "send_attempt": 1 });
        asked["next_link"] = json!(bad);
        let answer = post(&server, "/account/3pid/email/requestToken", &asked).await;
        refused(&answer, 400, "M_INVALID_PARAM");
    }
    let mut asked = json!({ "client_secret": "s", "email": "a@amt.example", "send_attempt": 1 });
    asked["next_link"] = json!("https://chat.amt.example/#/done?x=1");
    post(&server, "/account/3pid/email/requestToken", &asked).await;
    let mail = mailbox.get("a@amt.example", 1).await;
    let (status, next, _) = submit(&server, &link(&mail)).await;
    assert_eq!(
        (status, next.as_deref()),
        (303, Some("https://chat.amt.example/#/done?x=1"))
    );

    // Guesses are counted, and after ten of them the right token comes too late.
    ask(&server, what, "guess", "b@amt.example", 1).await;
    let right = link(&mailbox.get("b@amt.example", 1).await);
    let (place, token) = right.split_once("&token=").unwrap();
    for n in 0..10 {
        assert_eq!(
            submit(&server, &format!("{place}&token=guess{n}")).await.0,
            400
        );
    }
    assert_eq!(submit(&server, &right).await.0, 400);
    assert!(!server.log().contains(token), "a token in the log");
    for odd in [
        "sid=&token=",
        "sid=%00&token=%00",
        "token=x",
        "sid='&token=<script>",
    ] {
        let place = place.split_once('?').unwrap().0;
        assert_eq!(
            submit(&server, &format!("{place}?{odd}")).await.0,
            400,
            "{odd}"
        );
    }
    // What is over is over.
    ask(&server, what, "late", "c@amt.example", 1).await;
    let late = link(&mailbox.get("c@amt.example", 1).await);
    let mut conn = server.database().await;
    let over = "UPDATE validation SET expires_ts = 1 WHERE address = 'c@amt.example'";
    sqlx::query(over).execute(&mut conn).await.unwrap();
    assert_eq!(submit(&server, &late).await.0, 400);
    // A mailbox gets ten mails a day, whoever asks.
    for n in 2..=10 {
        assert_eq!(
            ask(&server, what, &format!("s{n}"), "c@amt.example", 1)
                .await
                .0,
            200
        );
    }
    refused(
        &ask(&server, what, "s11", "c@amt.example", 1).await,
        429,
        "M_LIMIT_EXCEEDED",
    );

    // What is not offered says so.
    let phone =
        json!({ "client_secret": "s", "country": "DE", "phone_number": "1", "send_attempt": 1 });
    let answer = post(&server, "/account/3pid/msisdn/requestToken", &phone).await;
    refused(&answer, 400, "M_THREEPID_MEDIUM_NOT_SUPPORTED");
    refused(
        &ask(&server, "/register", "s", "d@amt.example", 1).await,
        403,
        "M_THREEPID_DENIED",
    );
    let bind = json!({ "client_secret": "s", "sid": "s", "id_server": "id.example", "id_access_token": "t" });
    refused(
        &alice.post("/account/3pid/bind", bind).await,
        403,
        "M_SERVER_NOT_TRUSTED",
    );
    let plain = Server::start().await;
    refused(
        &ask(&plain, what, "s", "d@amt.example", 1).await,
        400,
        "M_THREEPID_MEDIUM_NOT_SUPPORTED",
    );
    let answer = post(
        &plain,
        "/account/password",
        &json!({ "new_password": "long enough" }),
    )
    .await;
    refused(&answer, 401, "M_MISSING_TOKEN");
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn accounts_begin_and_passwords_change_by_mail() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let mailbox = Mailbox::with_tls(&tls);
    let more = config(&mailbox)
        .replace(
            "tls = \"none\"",
            "username = \"matrix\"\npassword = \"geheim\"",
        )
        .replace("\"127.0.0.1\"", "\"localhost\"")
        .replace("open = true", "open = true\nemail = \"required\"");
    let server = Server::with(&more, Some(&tls)).await;

    // Registration asks for an address, and lets nobody through without a proof.
    let mut wanted = json!({ "username": "carol", "password": "correct horse" });
    let (status, body) = post(&server, "/register", &wanted).await;
    assert_eq!(
        (status, &body["flows"]),
        (401, &json!([{ "stages": ["m.login.email.identity"] }]))
    );
    let (_, sid) = ask(&server, "/register", "secret", "carol@amt.example", 1).await;
    wanted["auth"] = json!({
        "type": "m.login.email.identity",
        "session": body["session"],
        "threepid_creds": { "sid": sid["sid"], "client_secret": "secret" },
    });
    refused(
        &post(&server, "/register", &wanted).await,
        401,
        "M_UNAUTHORIZED",
    );
    let mail = mailbox.get("carol@amt.example", 1).await;
    assert_eq!(submit(&server, &link(&mail)).await.0, 200);
    wanted["password"] = json!("short");
    refused(
        &post(&server, "/register", &wanted).await,
        400,
        "M_WEAK_PASSWORD",
    );
    wanted["password"] = json!("correct horse");
    let (status, body) = post(&server, "/register", &wanted).await;
    assert_eq!(status, 200, "{body}");
    let base = server.url("");
    let carol = User::with_token(
        &base,
        body["user_id"].as_str().unwrap(),
        body["access_token"].as_str().unwrap(),
    );
    let (_, body) = carol.get("/account/3pid").await;
    assert_eq!(body["threepids"][0]["address"], "carol@amt.example");
    refused(
        &ask(&server, "/register", "s", "carol@amt.example", 1).await,
        400,
        "M_THREEPID_IN_USE",
    );

    // A new password: the answer is the same for an address that nobody has, and no mail goes there.
    let (status, body) = ask(&server, "/account/password", "new", "nobody@amt.example", 1).await;
    assert_eq!(status, 200, "{body}");
    let (_, sid) = ask(&server, "/account/password", "new", "carol@amt.example", 1).await;
    let mail = mailbox.get("carol@amt.example", 2).await;
    assert_eq!(
        mail["headers"]["subject"],
        "Bote: Neues Passwort / New password"
    );
    assert!(mailbox.mails("nobody@amt.example").is_empty());
    let mut change = json!({ "new_password": "battery staple" });
    let (status, body) = post(&server, "/account/password", &change).await;
    assert_eq!(
        (status, &body["flows"][0]["stages"]),
        (401, &json!(["m.login.email.identity"]))
    );
    change["auth"] = json!({
        "type": "m.login.email.identity",
        "session": body["session"],
        "threepid_creds": { "sid": sid["sid"], "client_secret": "new" },
    });
    refused(
        &post(&server, "/account/password", &change).await,
        401,
        "M_UNAUTHORIZED",
    );
    assert_eq!(submit(&server, &link(&mail)).await.0, 200);
    // It is good for what it was asked for, and for nothing else.
    let add = json!({ "sid": sid["sid"], "client_secret": "new", "auth": {
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "carol" },
        "password": "correct horse",
    } });
    refused(
        &carol.post("/account/3pid/add", add).await,
        400,
        "M_THREEPID_AUTH_FAILED",
    );
    let answer = post(&server, "/account/password", &change).await;
    assert_eq!(answer, (200, json!({})));
    assert_eq!(carol.get("/account/whoami").await.0, 401);
    let mut login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "carol" },
        "password": "correct horse",
    });
    refused(&post(&server, "/login", &login).await, 403, "M_FORBIDDEN");
    login["password"] = json!("battery staple");
    assert_eq!(post(&server, "/login", &login).await.0, 200);
    // And once.
    change["auth"].as_object_mut().unwrap().remove("session");
    refused(
        &post(&server, "/account/password", &change).await,
        401,
        "M_UNAUTHORIZED",
    );
    let log = server.log();
    assert!(
        !log.contains("geheim") && !log.contains("carol@amt.example"),
        "{log}"
    );
}

/// A pusher that mails.
fn pusher(address: &str, lang: &str) -> Value {
    json!({
        "kind": "email", "app_id": "m.email", "pushkey": address, "lang": lang,
        "app_display_name": "E-Mail", "device_display_name": address, "data": {},
    })
}

/// A room that both are in.
async fn room(alice: &User, bob: &User, name: &str) -> String {
    let room = alice
        .create_room(json!({ "preset": "private_chat", "name": name }))
        .await;
    alice
        .post(
            &format!("/rooms/{}/invite", enc(&room)),
            json!({ "user_id": bob.id }),
        )
        .await;
    bob.join(&room).await;
    room
}

async fn read(user: &User, room: &str, event: &str) {
    let path = format!("/rooms/{}/receipt/m.read/{}", enc(room), enc(event));
    assert_eq!(user.post(&path, json!({})).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn what_is_unread_is_mailed_once_and_says_how_much_and_not_what() {
    let mut mailbox = Mailbox::start();
    let more = format!(
        "{}client_url = \"https://chat.amt.example\"\nnotice_delay_s = 3\nnotice_pause_max_s = 4\n",
        config(&mailbox)
    );
    let mut server = Server::with(&more, None).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let address = "bob@amt.example";
    refused(
        &bob.post("/pushers/set", pusher(address, "de")).await,
        400,
        "M_THREEPID_NOT_FOUND",
    );
    mailbox.add(&server, &bob, address).await;
    refused(
        &alice.post("/pushers/set", pusher(address, "de")).await,
        400,
        "M_THREEPID_NOT_FOUND",
    );
    let (one, two) = (
        room(&alice, &bob, "Secret plans").await,
        room(&alice, &bob, "Other").await,
    );
    assert_eq!(
        bob.post("/pushers/set", pusher("Bob@amt.example", "de-DE"))
            .await
            .0,
        200
    );
    let (_, body) = bob.get("/pushers").await;
    assert_eq!(
        (&body["pushers"][0]["kind"], &body["pushers"][0]["pushkey"]),
        (&json!("email"), &json!(address))
    );

    for (room, text) in [(&one, "aaaa"), (&one, "bbbb"), (&two, "cccc")] {
        alice.say(room, text).await;
    }
    let mail = mailbox.get(address, 2).await;
    assert_eq!(
        mail["headers"]["subject"],
        "Bote: 3 neue Nachrichten in 2 Räumen"
    );
    let all = mail.to_string();
    for secret in [
        "alice",
        "Secret plans",
        "aaaa",
        "bbbb",
        "cccc",
        one.as_str(),
    ] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    assert!(
        mail["text"]
            .as_str()
            .unwrap()
            .contains("https://chat.amt.example")
    );
    assert_eq!(
        mail["headers"]["list-unsubscribe-post"],
        "List-Unsubscribe=One-Click"
    );

    // What is read before its time is not mailed: the next mail tells of the other room alone.
    let last = alice.say(&one, "dddd").await;
    read(&bob, &one, &last).await;
    let last = alice.say(&two, "eeee").await;
    let mail = mailbox.get(address, 3).await;
    assert_eq!(
        mail["headers"]["subject"],
        "Bote: 2 neue Nachrichten in 1 Raum"
    );
    read(&bob, &two, &last).await;

    // The relay is away, and the server dies: what is unread is mailed once, when both are back.
    mailbox.stop();
    alice.say(&one, "ffff").await;
    let mut conn = server.database().await;
    eventually("a try that fails", async || {
        let failures: i32 = sqlx::query_scalar("SELECT failures FROM pusher")
            .fetch_one(&mut conn)
            .await
            .unwrap();
        (failures > 0).then_some(())
    })
    .await;
    drop(conn);
    server.kill();
    server.restart().await;
    alice.say(&one, "gggg").await;
    mailbox.go_on();
    let mail = mailbox.get(address, 4).await;
    assert_eq!(
        mail["headers"]["subject"],
        "Bote: 2 neue Nachrichten in 1 Raum"
    );

    // Of two nodes one mails; an invitation is something to tell as well.
    let node = server.node().await;
    eventually("half of the users", async || {
        (node.figure("push_shares").await == 32).then_some(())
    })
    .await;
    let other = json!({ "preset": "private_chat", "invite": [bob.id] });
    alice.at(&node).create_room(other).await;
    let mail = mailbox.get(address, 5).await;
    assert!(
        mail["headers"]["subject"]
            .as_str()
            .unwrap()
            .ends_with("1 Einladung"),
        "{mail}"
    );
    let subjects = mailbox.mails(address).len();
    assert_eq!(subjects, 5, "a mail too many");

    // A program of the reader, or the button on the page, ends it.
    let header = mail["headers"]["list-unsubscribe"].as_str().unwrap();
    let end = header.trim_start_matches('<').trim_end_matches('>');
    assert!(mail["text"].as_str().unwrap().contains(end));
    let page = look(&server, end).await;
    assert!(
        page.text()
            .await
            .unwrap()
            .contains("<form method=\"post\">")
    );
    assert_eq!(
        bob.get("/pushers").await.1["pushers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let http = http::client();
    let request = http
        .post(at(&server, end))
        .body("List-Unsubscribe=One-Click");
    assert_eq!(request.ask().await.unwrap().status(), 200);
    assert_eq!(bob.get("/pushers").await.1, json!({ "pushers": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_named_where_the_operator_wants_it_and_mails_end_with_the_address() {
    let mailbox = Mailbox::start();
    let more = format!(
        "{}notice_content = \"rooms\"\nnotice_delay_s = 1\n[push]\nenabled = false\n",
        config(&mailbox)
    );
    let server = Server::with(&more, None).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let address = "bob@amt.example";
    mailbox.add(&server, &bob, address).await;
    bob.post("/pushers/set", pusher(address, "fr")).await;
    let room = room(&alice, &bob, "Referat <7>").await;
    alice.say(&room, "aaaa").await;
    let mail = mailbox.get(address, 2).await;
    let said: BTreeSet<&str> = mail["text"].as_str().unwrap().lines().collect();
    assert!(
        said.contains("Unread for you: 1 new message in 1 room."),
        "{said:?}"
    );
    assert!(said.contains("- Referat <7>: 1"), "{said:?}");
    assert!(
        mail["html"]
            .as_str()
            .unwrap()
            .contains("<li>Referat &lt;7&gt;: 1</li>")
    );

    // A relay that does not take mails for it, again and again, for days, is believed.
    mailbox.refuse("550 no such mailbox");
    let mut conn = server.database().await;
    eventually("the first mail to be noted", async || {
        let noted = "SELECT count(*) FROM mail_room WHERE sent_ts IS NOT NULL";
        let noted: i64 = sqlx::query_scalar(noted)
            .fetch_one(&mut conn)
            .await
            .unwrap();
        (noted == 1).then_some(())
    })
    .await;
    let long = "UPDATE pusher SET failures = 6, failing_ts = 1";
    sqlx::query(long).execute(&mut conn).await.unwrap();
    // Its pause is over sooner.
    sqlx::query("UPDATE mail_room SET pause_ms = 1")
        .execute(&mut conn)
        .await
        .unwrap();
    alice.say(&room, "bbbb").await;
    eventually("the pusher to be off", async || {
        let (_, body) = bob.get("/pushers").await;
        (body["pushers"][0]["org.matrix.msc3881.enabled"] == false).then_some(())
    })
    .await;
    let gone = json!({ "medium": "email", "address": address });
    assert_eq!(bob.post("/account/3pid/delete", gone).await.0, 200);
    assert_eq!(bob.get("/pushers").await.1, json!({ "pushers": [] }));
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM mail_room")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
