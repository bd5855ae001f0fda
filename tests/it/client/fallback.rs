//! Pages for what a client cannot do itself: stages of user-interactive authentication, and login.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    http::{self, Ask as _},
    mailbox::{self, Mailbox},
    pages::{self, Page},
    server::Server,
    user::{self, User},
};

async fn register(server: &Server, name: &str, session: Option<&Value>) -> (u16, Value) {
    let mut wish = json!({ "username": name, "password": format!("password of {name}") });
    if let Some(session) = session {
        wish["auth"] = json!({ "session": session });
    }
    user::register(&server.url(""), &wish).await
}

/// The page of a stage.
fn stage(name: &str, body: &Value) -> String {
    let session = body["session"].as_str().unwrap();
    format!("/_matrix/client/v3/auth/{name}/fallback/web?session={session}")
}

fn is_done(page: &Page) {
    assert_eq!(page.status, 200, "{}", page.html);
    assert!(
        page.html.contains("src=\"/_matrix/static/auth_done.js\""),
        "{}",
        page.html
    );
}

fn is_refused(page: &Page) {
    assert_eq!(page.status, 400, "{}", page.html);
    assert!(page.html.contains("role=\"alert\""), "{}", page.html);
    assert!(!page.html.contains("auth_done"), "{}", page.html);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_registers_by_pages_alone() {
    let config = "[registration]\nopen = true\nrequire_token = true\n\
         tokens_file = \"/dev/stdin\"\n[well_known]\nclient = \"https://amt.example\"\n\
         [[terms.policies]]\nid = \"terms\"\nversion = \"7\"\n\
         texts.de = { name = \"Bedingungen\", url = \"https://amt.example/agb\" }\n";
    let folder = crate::rig::server::Folder::new();
    let tokens = folder.0.join("tokens");
    std::fs::write(&tokens, "geheim\n").unwrap();
    let config = config.replace("/dev/stdin", &tokens.display().to_string());
    let server = Server::with(&config, None).await;
    let (status, body) = register(&server, "anna", None).await;
    assert_eq!(status, 401);
    let stages = json!([{ "stages": ["m.login.terms", "m.login.registration_token"] }]);
    assert_eq!(body["flows"], stages);

    let path = stage("m.login.terms", &body);
    let page = pages::open(&server, &path, "de").await;
    assert!(page.html.contains("<html lang=\"de\">"), "{}", page.html);
    assert_eq!(page.links(), ["https://amt.example/agb"]);
    assert_eq!(page.hidden("version"), "7");
    is_refused(&pages::send(&server, &path, &[("version", "7")]).await);
    is_refused(&pages::send(&server, &path, &[("version", "6"), ("agreed", "on")]).await);
    is_done(&pages::send(&server, &path, &[("version", "7"), ("agreed", "on")]).await);
    is_done(&pages::open(&server, &path, "en").await);
    let (status, answer) = register(&server, "anna", Some(&body["session"])).await;
    assert_eq!(
        (status, &answer["completed"]),
        (401, &json!(["m.login.terms"]))
    );

    let path = stage("m.login.registration_token", &body);
    assert_eq!(pages::open(&server, &path, "en").await.status, 200);
    is_refused(&pages::send(&server, &path, &[("token", "\"><script>")]).await);
    is_done(&pages::send(&server, &path, &[("token", "geheim")]).await);
    let (status, answer) = register(&server, "anna", Some(&body["session"])).await;
    assert_eq!(status, 200, "{answer}");
    // The session is used up.
    assert_eq!(pages::open(&server, &path, "en").await.status, 400);

    let (_, body) = register(&server, "bert", None).await;
    for (name, status) in [("m.login.dummy", 404), ("m.login.recaptcha", 404)] {
        let page = pages::open(&server, &stage(name, &body), "en").await;
        assert_eq!(page.status, status, "{name}");
        let page = pages::send(&server, &stage(name, &body), &[]).await;
        assert_eq!(page.status, status, "{name}");
    }
    for session in [
        "",
        "?session=",
        "?session=none",
        "?session=%22%3E%3Cscript%3E",
    ] {
        let path = format!("/_matrix/client/r0/auth/m.login.terms/fallback/web{session}");
        let page = pages::open(&server, &path, "en").await;
        assert_eq!(page.status, 400);
        assert!(!page.html.contains("<script>"), "{}", page.html);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_ask_for_a_button_or_a_password() {
    let server = Server::start().await;
    let (_, body) = register(&server, "anna", None).await;
    let path = stage("m.login.dummy", &body);
    let page = pages::open(&server, &path, "en").await;
    assert!(page.html.contains("<button"), "{}", page.html);
    is_done(&pages::send(&server, &path, &[]).await);
    let (status, answer) = register(&server, "anna", Some(&body["session"])).await;
    assert_eq!(status, 200, "{answer}");

    let (bert, other) = (server.user("bert").await, server.user("carl").await);
    let (_, who) = bert.get("/account/whoami").await;
    let device = format!("/devices/{}", who["device_id"].as_str().unwrap());
    let (status, body) = bert.call(Method::DELETE, &device, Some(json!({}))).await;
    assert_eq!(status, 401, "{body}");
    let path = stage("m.login.password", &body);
    let page = pages::open(&server, &path, "en").await;
    assert_eq!(page.attribute("value"), bert.id);
    // What no database can hold is no session.
    let none = stage("m.login.password", &json!({ "session": "%00" }));
    assert_eq!(pages::open(&server, &none, "en").await.status, 400);
    let auth = json!({ "auth": { "session": "\u{0}" } });
    let (status, told) = bert.call(Method::DELETE, &device, Some(auth)).await;
    assert_eq!((status, &told["errcode"]), (400, &json!("M_INVALID_PARAM")));
    is_refused(&pages::send(&server, &path, &[("password", "password of carl")]).await);
    is_refused(&pages::send(&server, &path, &[]).await);
    is_done(&pages::send(&server, &path, &[("password", "password of bert")]).await);
    // What the one proved is nothing to the other.
    let again = json!({ "auth": { "session": body["session"] } });
    let (_, who) = other.get("/account/whoami").await;
    let theirs = format!("/devices/{}", who["device_id"].as_str().unwrap());
    let (status, _) = other
        .call(Method::DELETE, &theirs, Some(again.clone()))
        .await;
    assert_eq!(status, 400);
    let (status, body) = bert.call(Method::DELETE, &device, Some(again)).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_an_address_proved() {
    let mailbox = Mailbox::start();
    let config = mailbox::config(&mailbox);
    let config = config.replace("open = true\n", "open = true\nemail = \"required\"\n");
    let server = Server::with(&config, None).await;
    let (_, body) = register(&server, "anna", None).await;
    let path = stage("m.login.email.identity", &body);
    assert_eq!(pages::open(&server, &path, "de").await.status, 200);
    is_refused(&pages::send(&server, &path, &[("email", "nobody")]).await);
    let page = pages::send(&server, &path, &[("email", "Anna@amt.example")]).await;
    assert_eq!(page.status, 200, "{}", page.html);
    let (sid, secret) = (page.hidden("sid"), page.hidden("client_secret"));
    let proof = [("sid", &*sid), ("client_secret", &*secret)];
    is_refused(&pages::send(&server, &path, &proof).await);
    let mail = mailbox.get("anna@amt.example", 1).await;
    let (status, _, _) = mailbox::submit(&server, &mailbox::link(&mail)).await;
    assert_eq!(status, 200);
    is_refused(&pages::send(&server, &path, &[("sid", &sid), ("client_secret", "other")]).await);
    is_done(&pages::send(&server, &path, &proof).await);
    let (status, answer) = register(&server, "anna", Some(&body["session"])).await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["access_token"].as_str().unwrap();
    let anna = User::with_token(&server.url(""), "@anna:x", token);
    let (_, body) = anna.get("/account/3pid").await;
    assert_eq!(body["threepids"][0]["address"], "anna@amt.example");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_logs_in_by_a_page() {
    let server = Server::start().await;
    server.user("anna").await;
    let path = "/_matrix/static/client/login/";
    let page = pages::open(&server, path, "en-US").await;
    assert!(page.html.contains("<html lang=\"en\">"), "{}", page.html);
    let wrong = [("user", "\"><b>anna"), ("password", "x")];
    let page = pages::send(&server, path, &wrong).await;
    assert_eq!(page.status, 403);
    assert!(page.html.contains("role=\"alert\""), "{}", page.html);
    assert!(!page.html.contains("<b>"), "{}", page.html);
    let right = [("user", "anna"), ("password", "password of anna")];
    let query = format!("{path}?device_id=SEITE&initial_device_display_name=Eine%20Seite");
    let page = pages::send(&server, &query, &right).await;
    assert_eq!(page.status, 200);
    assert!(page.html.contains("src=\"/_matrix/static/login_done.js\""));
    let answer: Value = serde_json::from_str(&page.attribute("data-answer")).unwrap();
    assert_eq!(answer["device_id"], "SEITE");
    let id = answer["user_id"].as_str().unwrap();
    let anna = User::with_token(
        &server.url(""),
        id,
        answer["access_token"].as_str().unwrap(),
    );
    let (status, device) = anna.get("/devices/SEITE").await;
    assert_eq!(
        (status, &device["display_name"]),
        (200, &json!("Eine Seite"))
    );

    let http = http::client();
    for (file, kind) in [
        ("page.css", "text/css"),
        ("auth_done.js", "text/javascript"),
        ("login_done.js", "text/javascript"),
    ] {
        let url = server.url(&format!("/_matrix/static/{file}"));
        let answer = http.get(url).ask().await.unwrap();
        let given = answer.headers()["content-type"].to_str().unwrap();
        assert!(given.starts_with(kind), "{file}: {given}");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    }
}
