//! Login by OAuth 2.0.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    browser::Browser,
    eventually,
    http::{self, Ask as _},
    identity::Identity,
    idp::{BASE, Provider},
    oauth::{self, CONFIG, Client, REDIRECT, enter, form, metadata, register, scope},
    server::Server,
    user::User,
};

/// Whether a session is one.
async fn is_in(user: &User) -> bool {
    user.get("/account/whoami").await.0 == 200
}

fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body[key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key}: {body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_find_what_there_is() {
    let server = Server::with(CONFIG, None).await;
    let facts = server.document("/_matrix/client/v1/auth_metadata").await;
    assert_eq!(facts["issuer"], format!("{BASE}/"));
    assert_eq!(
        facts["authorization_endpoint"],
        format!("{BASE}/_matrix/oauth2/authorize")
    );
    assert_eq!(facts["prompt_values_supported"], json!(["create"]));
    for path in [
        "/_matrix/client/unstable/org.matrix.msc2965/auth_metadata",
        "/.well-known/openid-configuration",
    ] {
        assert_eq!(server.document(path).await, facts, "{path}");
    }
    let known = server.document("/.well-known/matrix/client").await;
    let known = &known["org.matrix.msc2965.authentication"];
    assert_eq!(known["account"], facts["account_management_uri"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_a_session_by_what_its_user_says_in_a_browser() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let client = Client::of(&server).await;
    assert_eq!(Client::of(&server).await.id, client.id, "the same client");
    let address = client.wants("PHONE", &[]);
    let mut browser = Browser::new();
    let page = browser.go(&server, &address).await.shown(200);
    assert!(page.html.contains("Anmelden"), "{}", page.html);
    let login = |password| [("step", "login"), ("user", "Anna"), ("password", password)];
    let wrong = browser.submit(&server, &address, &login("wrong")).await;
    assert!(wrong.shown(403).html.contains("role=\"alert\""));
    let seen = browser
        .submit(&server, &address, &login("password of anna"))
        .await;
    assert_eq!(seen.next(), address, "and on with what was asked");
    assert_eq!(browser.cookies.len(), 1);

    let consent = browser.go(&server, &address).await;
    let policy = consent.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.ends_with("form-action 'self' https://chat.amt.example"),
        "{policy}"
    );
    let page = consent.shown(200);
    for part in [
        &*anna.id,
        "Behörden&lt;b&gt;chat",
        "chat.amt.example",
        "/privacy",
    ] {
        assert!(page.html.contains(part), "{part}: {}", page.html);
    }
    let seal = page.hidden("seal");
    let allow = [("seal", &*seal), ("step", "allow")];
    let seen = browser.submit(&server, &address, &allow).await;
    assert_eq!(client.brought(&seen, "state").unwrap(), "st&te");
    let code = client.brought(&seen, "code").unwrap();
    let (status, tokens) = client.redeem(&server, &code, &[]).await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["scope"], scope("PHONE"));
    assert!(tokens["expires_in"].as_i64().unwrap() > 0);

    let mut phone = oauth::user(&server, &tokens).await;
    assert_eq!(phone.id, anna.id);
    phone.sync(0).await;
    let (_, device) = phone.get("/devices/PHONE").await;
    assert_eq!(device["display_name"], "Behörden<b>chat");

    // A code is good once: a second time somebody else has it too.
    let (status, body) = client.redeem(&server, &code, &[]).await;
    assert_eq!((status, text(&body, "error")), (400, "invalid_grant"));
    assert!(!is_in(&phone).await);
    assert!(is_in(&anna).await, "other sessions stay");
    let log = server.log();
    assert!(
        !log.contains(&code) && !log.contains("password of anna"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_asks_for_wrongly_is_refused_where_it_waits_or_to_the_user() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let client = Client::of(&server).await;
    let mut browser = enter(&server, &anna).await;
    // What is wrong with the client itself goes nowhere.
    for other in [
        ("client_id", "unknown"),
        ("client_id", "\u{0}"),
        ("client_id", ""),
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", "https://chat.amt.example/back/more"),
        ("redirect_uri", ""),
    ] {
        let seen = browser.go(&server, &client.wants("PHONE", &[other])).await;
        assert!(seen.shown(400).html.contains("nicht möglich"), "{other:?}");
        assert_eq!(seen.location, None);
    }
    let twice = scope("A") + " " + &scope("B");
    for (other, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("response_mode", "form_post"), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("scope", "openid"), "invalid_scope"),
        (("scope", &twice), "invalid_scope"),
        (("prompt", "none"), "interaction_required"),
    ] {
        let seen = browser.go(&server, &client.wants("PHONE", &[other])).await;
        assert_eq!(client.brought(&seen, "error").unwrap(), error, "{other:?}");
        assert_eq!(client.brought(&seen, "state").unwrap(), "st&te");
    }
    // The user says no.
    let address = client.wants("PHONE", &[("response_mode", "query")]);
    let seal = browser
        .go(&server, &address)
        .await
        .shown(200)
        .hidden("seal");
    let deny = [("seal", &*seal), ("step", "deny")];
    let seen = browser.submit(&server, &address, &deny).await;
    assert!(
        seen.next()
            .starts_with("https://chat.amt.example/back?error=access_denied")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_for_who_began_as_long_as_the_browser_is_logged_in() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let client = Client::of(&server).await;
    let mut browser = enter(&server, &anna).await;
    let code = client.code(&server, &mut browser, "PHONE").await;
    let verifier = "x".repeat(43);
    for (other, error) in [
        (("code_verifier", &*verifier), "invalid_grant"),
        (("code_verifier", ""), "invalid_grant"),
        (
            ("redirect_uri", "https://chat.amt.example/"),
            "invalid_grant",
        ),
        (("code", "wrong"), "invalid_grant"),
        (("grant_type", "password"), "unsupported_grant_type"),
        (("client_id", "unknown"), "invalid_client"),
    ] {
        let (status, body) = client.redeem(&server, &code, &[other]).await;
        assert_eq!(text(&body, "error"), error, "{other:?}");
        assert_eq!(status, if error == "invalid_client" { 401 } else { 400 });
    }
    assert_eq!(form(&server, "token", &[("a", "b")]).await.0, 400);
    assert_eq!(
        client.redeem(&server, &code, &[]).await.0,
        200,
        "wrong tries do not use it up"
    );
    // A browser that has logged out gives nothing any more.
    let code = client.code(&server, &mut browser, "OTHER").await;
    let seal = browser
        .go(&server, "/_matrix/account")
        .await
        .shown(200)
        .hidden("seal");
    let leave = [("seal", &*seal), ("step", "leave")];
    browser.submit(&server, "/_matrix/account", &leave).await;
    assert!(browser.cookies.is_empty());
    let (_, body) = client.redeem(&server, &code, &[]).await;
    assert_eq!(text(&body, "error"), "invalid_grant");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_are_taken_from_the_browser_that_was_given_them() {
    let server = Server::with(CONFIG, None).await;
    let (anna, bernd) = (server.user("anna").await, server.user("bernd").await);
    let client = Client::of(&server).await;
    let (mut annas, mut bernds) = (enter(&server, &anna).await, enter(&server, &bernd).await);
    let address = client.wants("PHONE", &[]);
    let seal = bernds.go(&server, &address).await.shown(200).hidden("seal");
    for seal in ["", "x", &seal] {
        let allow = [("seal", seal), ("step", "allow")];
        let seen = annas.submit(&server, &address, &allow).await;
        assert_eq!(seen.next(), address, "nothing but the page again");
    }
    // Another site sends it.
    let seal = annas.go(&server, &address).await.shown(200).hidden("seal");
    let cookie = annas.cookies.iter().next().unwrap();
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let request = http::client()
            .post(server.url(&address))
            .header(name, value);
        let request = request.header("cookie", format!("{}={}", cookie.0, cookie.1));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let form = format!("seal={seal}&step=allow");
        assert_eq!(
            request.body(form).ask().await.unwrap().status(),
            403,
            "{name} {value}"
        );
    }
    for body in ["step=allow&step=deny", "%", "a=b"] {
        let request = http::client().post(server.url(&address));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let status = request.body(body).ask().await.unwrap().status();
        assert!(!status.is_server_error(), "{body}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_refreshed_by_their_client_and_end_with_a_thief() {
    let server = Server::with(CONFIG, None).await;
    let other_node = server.node().await;
    let anna = server.user("anna").await;
    let client = Client::of(&server).await;
    let mut browser = enter(&server, &anna).await;
    let (phone, tokens) = client.session(&server, &mut browser, "PHONE").await;
    let first = text(&tokens, "refresh_token");

    // The answer may be lost: the old one is good until the new pair is used.
    let (_, lost) = client.refresh(&server, first).await;
    let (status, tokens) = client.refresh(&other_node, first).await;
    assert_eq!(status, 200, "{tokens}");
    assert!(is_in(&phone).await, "so is the old access token");
    let again = oauth::user(&other_node, &tokens).await;

    // Only its client has it refreshed, and only there.
    let mut other = metadata();
    other["client_name"] = json!("Other");
    let (_, other) = register(&server, &other).await;
    let other = Client {
        id: text(&other, "client_id").to_owned(),
        redirect: REDIRECT.to_owned(),
    };
    let second = text(&tokens, "refresh_token");
    let (status, body) = other.refresh(&server, second).await;
    assert_eq!((status, text(&body, "error")), (400, "invalid_grant"));
    let old = json!({ "refresh_token": second });
    assert_eq!(anna.post("/refresh", old).await.0, 401);
    assert!(is_in(&again).await);
    let wish = json!({
        "type": "m.login.password", "refresh_token": true, "password": "password of anna",
        "identifier": { "type": "m.id.user", "user": "anna" },
    });
    let (_, legacy) = anna.post("/login", wish).await;
    let (_, body) = client
        .refresh(&server, text(&legacy, "refresh_token"))
        .await;
    assert_eq!(text(&body, "error"), "invalid_grant");
    let old = json!({ "refresh_token": legacy["refresh_token"] });
    assert_eq!(anna.post("/refresh", old).await.0, 200);

    // A dead one is in the hands of two: nobody has a session any more.
    let _ = lost;
    let (_, body) = client.refresh(&server, first).await;
    assert_eq!(text(&body, "error"), "invalid_grant");
    assert!(!is_in(&again.at(&server)).await);
    eventually("the other node to hear of it", async || {
        (!is_in(&again).await).then_some(())
    })
    .await;
    assert_eq!(client.refresh(&server, second).await.0, 400);
    assert!(is_in(&anna).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_over_do_not_heap_up() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let client = Client::of(&server).await;
    let mut browser = enter(&server, &anna).await;
    let (_, mut tokens) = client.session(&server, &mut browser, "PHONE").await;
    let mut database = server.database().await;
    for _ in 0..5 {
        let over = sqlx::query("UPDATE access_token SET expires_ts = 1 WHERE expires_ts > 1");
        over.execute(&mut database).await.unwrap();
        tokens = client
            .refresh(&server, text(&tokens, "refresh_token"))
            .await
            .1;
        oauth::user(&server, &tokens).await;
    }
    let kept = "SELECT count(*) FROM access_token WHERE expires_ts IS NOT NULL";
    let kept: i64 = sqlx::query_scalar(kept)
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(kept, 1);
    let kept = "SELECT count(*) FROM refresh_token";
    let kept: i64 = sqlx::query_scalar(kept)
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(kept, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_token_can_end_it() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let client = Client::of(&server).await;
    let mut browser = enter(&server, &anna).await;
    for name in ["access_token", "refresh_token"] {
        let (phone, tokens) = client.session(&server, &mut browser, "PHONE").await;
        let fields = [("token", text(&tokens, name)), ("client_id", &client.id)];
        assert_eq!(form(&server, "revoke", &fields).await, (200, json!({})));
        assert!(!is_in(&phone).await, "{name}");
        assert_eq!(
            client
                .refresh(&server, text(&tokens, "refresh_token"))
                .await
                .0,
            400
        );
        assert_eq!(
            form(&server, "revoke", &fields).await.0,
            200,
            "it is ended already"
        );
        assert_eq!(anna.get("/devices/PHONE").await.0, 404);
    }
    assert_eq!(
        form(&server, "revoke", &[("token", "nothing")]).await.0,
        200
    );
    let (status, body) = form(&server, "revoke", &[]).await;
    assert_eq!((status, text(&body, "error")), (400, "invalid_request"));
}

/// A device asks whether it may come in.
async fn poll(server: &Server, client: &Client, begun: &Value) -> (u16, Value) {
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let fields = [
        ("grant_type", grant),
        ("device_code", text(begun, "device_code")),
        ("client_id", &client.id),
    ];
    form(server, "token", &fields).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_a_browser_is_let_in_from_elsewhere() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let client = Client::of(&server).await;
    let mut browser = enter(&server, &anna).await;
    let scope = scope("TABLET");
    let wish = [("client_id", &*client.id), ("scope", &*scope)];
    for (other, error) in [
        ([("client_id", "unknown"), wish[1]], "invalid_client"),
        ([wish[0], ("scope", "openid")], "invalid_scope"),
    ] {
        let (_, body) = form(&server, "device", &other).await;
        assert_eq!(text(&body, "error"), error);
    }
    let (status, begun) = form(&server, "device", &wish).await;
    assert_eq!(status, 200, "{begun}");
    let complete = text(&begun, "verification_uri_complete");
    assert_eq!(
        text(&poll(&server, &client, &begun).await.1, "error"),
        "authorization_pending"
    );
    assert_eq!(
        text(&poll(&server, &client, &begun).await.1, "error"),
        "slow_down"
    );

    // Typed by hand, as people do.
    let typed = text(&begun, "user_code").to_lowercase().replace('-', " ");
    let page = browser.go(&server, "/_matrix/oauth2/link").await.shown(200);
    let seal = page.hidden("seal");
    let step = |step, code| [("seal", seal.clone()), ("step", step), ("code", code)];
    let sent = async |browser: &mut Browser, step_name: &str, code: &str| {
        let fields = step(step_name.to_owned(), code.to_owned());
        let fields = fields.each_ref().map(|(name, value)| (*name, &**value));
        browser
            .submit(&server, "/_matrix/oauth2/link", &fields)
            .await
    };
    let wrong = sent(&mut browser, "code", "BCDF-BCDF").await;
    assert!(wrong.shown(400).html.contains("role=\"alert\""));
    let page = sent(&mut browser, "code", &typed).await.shown(200);
    assert!(page.html.contains("amt.example"), "{}", page.html);
    let code = page.hidden("code");
    sent(&mut browser, "allow", &code).await.shown(200);
    let (status, tokens) = poll(&server, &client, &begun).await;
    assert_eq!(status, 200, "{tokens}");
    let tablet = oauth::user(&server, &tokens).await;
    assert_eq!(tablet.id, anna.id);
    assert_eq!(tablet.get("/devices/TABLET").await.0, 200);
    assert_eq!(
        text(&poll(&server, &client, &begun).await.1, "error"),
        "invalid_grant",
        "once"
    );
    sent(&mut browser, "allow", &code).await.shown(400);
    browser.go(&server, complete).await.shown(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_refused_or_waits_in_vain() {
    let server = Server::with(CONFIG, None).await;
    server.user("anna").await;
    let client = Client::of(&server).await;
    let scope = scope("TABLET");
    let wish = [("client_id", &*client.id), ("scope", &*scope)];
    // By the link, by somebody who has to log in first, and says no.
    let (_, begun) = form(&server, "device", &wish).await;
    let complete = text(&begun, "verification_uri_complete");
    let path = complete.strip_prefix(BASE).unwrap();
    let mut another = Browser::new();
    another.go(&server, complete).await.shown(200);
    let login = [
        ("step", "login"),
        ("user", "anna"),
        ("password", "password of anna"),
    ];
    let seen = another.submit(&server, path, &login).await;
    assert_eq!(seen.next(), path);
    let page = another.go(&server, path).await.shown(200);
    let (seal, code) = (page.hidden("seal"), page.hidden("code"));
    let deny = [("seal", &*seal), ("code", &*code), ("step", "deny")];
    another.submit(&server, path, &deny).await.shown(200);
    assert_eq!(
        text(&poll(&server, &client, &begun).await.1, "error"),
        "access_denied"
    );

    // Nobody came in time.
    let (_, begun) = form(&server, "device", &wish).await;
    let mut database = server.database().await;
    sqlx::query("UPDATE oauth_link SET expires_ts = 0")
        .execute(&mut database)
        .await
        .unwrap();
    assert_eq!(
        text(&poll(&server, &client, &begun).await.1, "error"),
        "expired_token"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_makes_an_account_on_the_way() {
    let folder = crate::rig::server::Folder::new();
    let tokens = folder.0.join("tokens");
    std::fs::write(&tokens, "geheim\n").unwrap();
    let config = CONFIG.replace(
        "open = true",
        &format!(
            "open = true\nrequire_token = true\ntokens_file = \"{}\"",
            tokens.display()
        ),
    ) + "[[terms.policies]]\nid = \"terms\"\nversion = \"7\"\n\
         texts.de = { name = \"Bedingungen\", url = \"https://amt.example/agb\" }\n";
    let server = Server::with(&config, None).await;
    let client = Client::of(&server).await;
    let address = client.wants("PHONE", &[("prompt", "create")]);
    let mut browser = Browser::new();
    let page = browser.go(&server, &address).await.shown(200);
    assert!(page.html.contains("Ein Konto anlegen"), "{}", page.html);
    let login = page
        .links()
        .into_iter()
        .find(|link| link.contains("enter=login"))
        .unwrap();
    assert!(
        browser
            .go(&server, &login)
            .await
            .shown(200)
            .html
            .contains("value=\"login\"")
    );
    let version = page.hidden("version");
    let right = [
        ("step", "register"),
        ("user", "Neu.Amt"),
        ("new_password", "langes passwort"),
        ("again", "langes passwort"),
        ("token", "geheim"),
        ("agreed", "on"),
        ("version", &*version),
    ];
    for (name, value) in [
        ("user", "ä"),
        ("user", ""),
        ("new_password", "anderes passwort"),
        ("token", "falsch"),
        ("version", "6"),
    ] {
        let fields = right.map(|(key, old)| (key, if key == name { value } else { old }));
        let seen = browser.submit(&server, &address, &fields).await;
        assert!(seen.shown(400).html.contains("role=\"alert\""), "{name}");
    }
    let unread: Vec<_> = right
        .into_iter()
        .filter(|(key, _)| *key != "agreed")
        .collect();
    browser.submit(&server, &address, &unread).await.shown(400);
    assert!(browser.cookies.is_empty());
    let seen = browser.submit(&server, &address, &right).await;
    assert_eq!(seen.next(), address);
    let (user, _) = client.session(&server, &mut browser, "PHONE").await;
    assert_eq!(user.id, format!("@neu.amt:{}", server.name));
    user.create_room(json!({})).await;
    let taken = Browser::new().submit(&server, &address, &right).await;
    assert!(taken.shown(400).html.contains("taken") || taken.page.contains("vergeben"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_weighty_is_done_on_the_page_of_the_account() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let client = Client::of(&server).await;
    let mut browser = enter(&server, &anna).await;
    let (phone, _) = client.session(&server, &mut browser, "PHONE").await;
    let (_, body) = phone.get("/capabilities").await;
    assert_eq!(body["capabilities"]["m.change_password"]["enabled"], false);
    for (method, path, body) in [
        (Method::DELETE, "/devices/PHONE", json!({})),
        (
            Method::POST,
            "/delete_devices",
            json!({ "devices": ["PHONE"] }),
        ),
        (
            Method::POST,
            "/account/password",
            json!({ "new_password": "another password" }),
        ),
        (Method::POST, "/account/deactivate", json!({})),
    ] {
        let (status, body) = phone.call(method, path, Some(body)).await;
        assert_eq!(
            (status, text(&body, "errcode")),
            (403, "M_FORBIDDEN"),
            "{path}"
        );
    }
    let page = browser.go(&server, "/_matrix/account").await.shown(200);
    assert!(
        page.html.contains(&anna.id) && page.html.contains("PHONE"),
        "{}",
        page.html
    );
    let seal = page.hidden("seal");
    let name = [("seal", &*seal), ("step", "name"), ("name", "Anna <Amt>")];
    let seen = browser.submit(&server, "/_matrix/account", &name).await;
    let page = browser.go(&server, seen.next()).await.shown(200);
    assert!(page.html.contains("role=\"status\"") && page.html.contains("Anna &lt;Amt&gt;"));
    let (_, profile) = anna
        .get(&format!("/profile/{}", crate::rig::enc(&anna.id)))
        .await;
    assert_eq!(profile["displayname"], "Anna <Amt>");
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_logged_out_where_a_client_leads() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let mut browser = enter(&server, &anna).await;
    let client = Client::of(&server).await;
    let (phone, _) = client.session(&server, &mut browser, "PHONE").await;
    // A device, where a client leads.
    let view = "/_matrix/account?action=org.matrix.device_delete&device_id=PHONE";
    let page = browser.go(&server, view).await.shown(200);
    assert!(
        page.html.contains("amt.example"),
        "by which client: {}",
        page.html
    );
    let seal = page.hidden("seal");
    let device = [("seal", &*seal), ("step", "device"), ("device_id", "PHONE")];
    browser.submit(&server, view, &device).await.next();
    assert!(!is_in(&phone).await);
    browser.go(&server, view).await.shown(200);
    for action in [
        "org.matrix.devices_list",
        "org.matrix.profile",
        "unknown",
        "%00",
    ] {
        let path = format!("/_matrix/account?action={action}");
        browser.go(&server, &path).await.shown(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_logs_browsers_out() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let mut browser = enter(&server, &anna).await;
    let page = browser.go(&server, "/_matrix/account").await.shown(200);
    let seal = page.hidden("seal");
    // The password, which logs other browsers out.
    let mut elsewhere = enter(&server, &anna).await;
    let mut change = [
        ("seal", &*seal),
        ("step", "password"),
        ("password", "wrong"),
        ("new_password", "ein neues passwort"),
        ("again", "ein neues passwort"),
    ];
    browser
        .submit(&server, "/_matrix/account", &change)
        .await
        .shown(400);
    change[2].1 = "password of anna";
    let seen = browser.submit(&server, "/_matrix/account", &change).await;
    let page = browser.go(&server, seen.next()).await.shown(200);
    assert!(page.html.contains("role=\"status\""), "{}", page.html);
    let page = elsewhere.go(&server, "/_matrix/account").await.shown(200);
    assert!(page.html.contains("value=\"login\""), "{}", page.html);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_closed_by_its_password() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let mut browser = enter(&server, &anna).await;
    // The end of it.
    let end = "/_matrix/account?action=org.matrix.account_deactivate";
    let seal = browser.go(&server, end).await.shown(200).hidden("seal");
    let mut close = [("seal", &*seal), ("step", "close"), ("password", "wrong")];
    browser.submit(&server, end, &close).await.shown(400);
    close[2].1 = "password of anna";
    browser.submit(&server, end, &close).await.shown(200);
    assert!(!is_in(&anna).await);
    let page = browser.go(&server, "/_matrix/account").await.shown(200);
    assert!(page.html.contains("value=\"login\""), "{}", page.html);
}

#[tokio::test(flavor = "multi_thread")]
async fn cross_signing_keys_are_replaced_once_the_user_says_so_in_a_browser() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let client = Client::of(&server).await;
    let mut browser = enter(&server, &anna).await;
    let (phone, _) = client.session(&server, &mut browser, "PHONE").await;
    let keys = || Identity::new(&anna.id).body();
    let path = "/keys/device_signing/upload";
    assert_eq!(
        phone.post(path, keys()).await.0,
        200,
        "the first needs nothing"
    );
    let (status, body) = phone.post(path, keys()).await;
    assert_eq!(status, 401, "{body}");
    assert_eq!(body["flows"][0]["stages"], json!(["m.oauth"]));
    let page = "/_matrix/account?action=org.matrix.cross_signing_reset";
    assert_eq!(body["params"]["m.oauth"]["url"], format!("{BASE}{page}"));
    let mut again = keys();
    again["auth"] = json!({ "session": body["session"] });
    assert_eq!(
        phone.post(path, again.clone()).await.0,
        401,
        "nobody said so"
    );
    let mut claimed = again.clone();
    claimed["auth"]["type"] = json!("m.oauth");
    assert_eq!(phone.post(path, claimed).await.0, 401);

    let seal = browser.go(&server, page).await.shown(200).hidden("seal");
    let replace = [("seal", &*seal), ("step", "replace")];
    browser.submit(&server, page, &replace).await.next();
    assert_eq!(phone.post(path, again).await.0, 200);
    assert_eq!(phone.post(path, keys()).await.0, 401, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_know_the_older_login_alone_go_the_same_way() {
    let server = Server::with(CONFIG, None).await;
    let anna = server.user("anna").await;
    let flows = server.document("/_matrix/client/v3/login").await;
    let flows = flows["flows"].as_array().unwrap();
    let flow = flows
        .iter()
        .find(|flow| flow["type"] == "m.login.sso")
        .unwrap();
    assert_eq!(flow["oauth_aware_preferred"], true);
    assert!(flows.iter().any(|flow| flow["type"] == "m.login.password"));

    let waits = crate::rig::enc("https://chat.amt.example/?a=b");
    let door = format!("/_matrix/client/v3/login/sso/redirect?redirectUrl={waits}&action=register");
    let mut browser = Browser::new();
    let seen = browser.go(&server, &door).await;
    let page = browser.go(&server, seen.next()).await.shown(200);
    assert!(page.html.contains("value=\"register\""), "{}", page.html);
    let mut browser = enter(&server, &anna).await;
    let page = browser.go(&server, seen.next()).await.shown(200);
    assert!(page.html.contains("chat.amt.example") && page.html.contains(&anna.id));
    let seal = page.hidden("seal");
    let deny = [("seal", &*seal), ("step", "deny")];
    browser.submit(&server, seen.next(), &deny).await.shown(200);
    let allow = [("seal", &*seal), ("step", "allow")];
    let back = browser.submit(&server, seen.next(), &allow).await;
    let (client, token) = back.next().split_once("&loginToken=").unwrap();
    assert_eq!(client, "https://chat.amt.example/?a=b");
    let wish = json!({ "type": "m.login.token", "token": token });
    let (status, body) = anna.post("/login", wish).await;
    assert_eq!((status, text(&body, "user_id")), (200, &*anna.id));
    for bad in ["javascript%3Aalert(1)", ""] {
        let path = format!("/_matrix/oauth2/sso?redirectUrl={bad}");
        browser.go(&server, &path).await.shown(400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_provider_opens_the_pages_and_closes_them() {
    let provider = Provider::start().await;
    let section = provider.section("idp", "backchannel_logout = true\n");
    let server = Server::with(&format!("{CONFIG}{section}"), None).await;
    let client = Client::of(&server).await;
    let address = client.wants("PHONE", &[]);
    let mut browser = Browser::new();
    let page = browser.go(&server, &address).await.shown(200);
    let mut links = page.links().into_iter();
    let link = links.find(|link| link.contains("/provider/idp")).unwrap();
    let sent = browser.go(&server, &link).await;
    let back = browser.go(&server, sent.next()).await;
    let mut other = Browser::new();
    other
        .go(&server, back.next())
        .await
        .is_refusal(400, "abgelaufen");
    let entered = browser.go(&server, back.next()).await;
    assert_eq!(entered.next(), address);
    let (phone, _) = client.session(&server, &mut browser, "PHONE").await;
    assert_eq!(phone.id, format!("@anna.amt:{}", server.name));
    let page = browser.go(&server, "/_matrix/account").await.shown(200);
    assert!(
        !page.html.contains("type=\"password\""),
        "there is none: {}",
        page.html
    );
    for bad in [
        "/_matrix/oauth2/provider/idp?back=https%3A%2F%2Fevil.example%2F",
        "/_matrix/oauth2/provider/idp?back=%2F%2Fevil.example%2F",
        "/_matrix/oauth2/provider/idp?back=%2F_matrix%2F%0D%0Ax",
        "/_matrix/oauth2/provider/none?back=%2F_matrix%2Faccount",
    ] {
        assert_eq!(browser.go(&server, bad).await.status, 404, "{bad}");
    }

    // What it ends is the session of the client, and that of the browser.
    let code = client.code(&server, &mut browser, "OTHER").await;
    let token = provider.logout_token(json!({ "sub": "0815-anna" }));
    let url = server.url("/_synapse/client/oidc/backchannel_logout");
    let request = http::client().post(url);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = request
        .body(format!("logout_token={token}"))
        .ask()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!is_in(&phone).await);
    assert_eq!(client.redeem(&server, &code, &[]).await.0, 400);
    let page = browser.go(&server, "/_matrix/account").await.shown(200);
    assert!(page.html.contains("value=\"login\""), "{}", page.html);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_say_who_they_are_and_where_it_is_off_nobody_asks() {
    let server = Server::with(CONFIG, None).await;
    let (status, body) = register(&server, &metadata()).await;
    assert_eq!(status, 201);
    assert_eq!(body["redirect_uris"], json!([REDIRECT]));
    for (other, error) in [
        (
            json!({ "client_uri": "http://amt.example/" }),
            "invalid_client_metadata",
        ),
        (
            json!({ "redirect_uris": ["https://evil.example/"] }),
            "invalid_redirect_uri",
        ),
        (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
        (
            json!({ "grant_types": ["password"] }),
            "invalid_client_metadata",
        ),
        (
            json!({ "client_name": 5, "redirect_uris": 7 }),
            "invalid_client_metadata",
        ),
    ] {
        let mut said = metadata();
        said.as_object_mut()
            .unwrap()
            .extend(other.as_object().unwrap().clone());
        let (status, body) = register(&server, &said).await;
        assert_eq!((status, text(&body, "error")), (400, error), "{other}");
    }
    let (status, _) = register(&server, &json!({ "x": "y".repeat(100_000) })).await;
    assert_eq!(status, 400);

    let server = Server::start().await;
    for path in [
        "/_matrix/client/v1/auth_metadata",
        "/_matrix/oauth2/authorize",
        "/_matrix/oauth2/link",
        "/_matrix/oauth2/sso",
        "/_matrix/account",
    ] {
        let answer = http::client().get(server.url(path)).ask().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["errcode"], "M_UNRECOGNIZED");
    }
    for path in ["register", "token", "revoke", "device"] {
        let url = server.url(&format!("/_matrix/oauth2/{path}"));
        assert_eq!(
            http::client().post(url).ask().await.unwrap().status(),
            404,
            "{path}"
        );
    }
}
