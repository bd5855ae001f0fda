//! Accounts as administrators list, change, close and open them.

use reqwest::Method;
use serde_json::{Value, json};

use super::guests;
use crate::rig::{
    appservice::Appservice, enc, eventually, operator::Operator, server::Server, user::User,
};

/// Where the account of a user is.
fn path(user: &User) -> String {
    format!("/v2/users/{}", enc(&user.id))
}

fn flag(user: &User) -> String {
    format!("/v1/users/{}/admin", enc(&user.id))
}

/// A tool with the session of a usual user.
fn tool(user: &User, operator: &Operator) -> Operator {
    Operator {
        base: operator.base.clone(),
        token: user.token.clone(),
        id: user.id.clone(),
    }
}

async fn put(operator: &Operator, user: &User, wish: Value) -> Value {
    let (status, body) = operator.ask(Method::PUT, &path(user), Some(wish)).await;
    assert_eq!(status, 200, "{body}");
    body
}

async fn login(server: &Server, name: &str, password: &str) -> (u16, Value) {
    let nobody = User::with_token(&server.url(""), "@nobody:x", "none");
    let wish = json!({
        "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": name },
    });
    nobody.post("/login", wish).await
}

async fn is_in(user: &User) -> bool {
    user.get("/account/whoami").await.0 == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_are_made_and_unmade_at_once_on_every_node() {
    let server = Server::start().await;
    let node = server.node().await;
    let operator = Operator::of(&server).await;
    let anna = server.user("anna").await;
    let here = tool(&anna, &operator);
    let there = Operator {
        base: node.url("/_synapse/admin"),
        ..tool(&anna, &operator)
    };
    // Both nodes know the session now.
    for anna in [&here, &there] {
        let (status, body) = anna.ask(Method::GET, &flag_of(anna), None).await;
        assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    }
    assert_eq!(operator.get(&flag(&anna)).await, json!({ "admin": false }));
    let set = async |by: &Operator, id: &str, body: Value| {
        let path = format!("/v1/users/{}/admin", enc(id));
        by.ask(Method::PUT, &path, Some(body)).await
    };
    let made = set(&operator, &anna.id, json!({ "admin": true })).await;
    assert_eq!(made, (200, json!({})));
    assert_eq!(here.get(&flag(&anna)).await, json!({ "admin": true }));
    eventually("the other node", async || {
        let (status, _) = there.ask(Method::GET, &flag(&anna), None).await;
        (status == 200).then_some(())
    })
    .await;

    // Nobody takes it from themselves, by either way; others do.
    let own = set(&here, &anna.id, json!({ "admin": false })).await;
    let other = here
        .ask(Method::PUT, &path(&anna), Some(json!({ "admin": false })))
        .await;
    for (status, body) in [own, other] {
        assert_eq!(status, 400);
        assert_eq!(body["error"], "You may not demote yourself.");
    }
    for (id, body, status) in [
        (&*anna.id, json!({}), 400),
        (&anna.id, json!({ "admin": "yes" }), 400),
        (&anna.id, json!({ "admin": null }), 400),
        ("anna", json!({ "admin": true }), 400),
        ("@anna:elsewhere.example", json!({ "admin": true }), 400),
        (
            &anna.id.replace("anna", "nobody"),
            json!({ "admin": true }),
            404,
        ),
    ] {
        let (given, told) = set(&operator, id, body).await;
        assert_eq!(given, status, "{id}: {told}");
    }
    assert_eq!(operator.get(&flag(&anna)).await, json!({ "admin": true }));
    let unmade = set(&operator, &anna.id, json!({ "admin": false })).await;
    assert_eq!(unmade, (200, json!({})));
    assert_eq!(here.ask(Method::GET, &flag(&anna), None).await.0, 403);
    // By the account as well, and at once.
    put(&operator, &anna, json!({ "admin": true })).await;
    assert_eq!(here.get(&flag(&anna)).await, json!({ "admin": true }));
    put(&operator, &anna, json!({ "admin": false })).await;
    assert_eq!(here.ask(Method::GET, &flag(&anna), None).await.0, 403);
    eventually("the other node", async || {
        let (status, _) = there.ask(Method::GET, &flag(&anna), None).await;
        (status == 403).then_some(())
    })
    .await;
}

fn flag_of(tool: &Operator) -> String {
    format!("/v1/users/{}/admin", enc(&tool.id))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_closed_and_opened_with_a_new_password() {
    let config = "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
                  [user_directory]\nsearch_all_users = true\n";
    let server = Server::with(config, None).await;
    let operator = Operator::of(&server).await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    let room = bert.create_room(json!({ "preset": "public_chat" })).await;
    anna.join(&room).await;
    assert!(is_in(&anna).await);
    let closed = put(&operator, &anna, json!({ "deactivated": true })).await;
    assert_eq!(
        (&closed["deactivated"], &closed["displayname"]),
        (&json!(true), &Value::Null)
    );
    assert!(!is_in(&anna).await);
    assert_eq!(login(&server, "anna", "password of anna").await.0, 403);
    let member = format!(
        "/rooms/{}/state/m.room.member/{}",
        enc(&room),
        enc(&anna.id)
    );
    assert_eq!(bert.get(&member).await.1["membership"], "leave");

    // It may be closed again, and nothing else is done to it.
    put(&operator, &anna, json!({ "deactivated": true })).await;
    for (wish, status) in [
        (json!({ "displayname": "Anna" }), 403),
        (json!({ "deactivated": true, "displayname": "Anna" }), 403),
        (json!({ "password": "a password of hers" }), 403),
        (json!({ "deactivated": false }), 400),
        (json!({ "deactivated": false, "password": "x" }), 400),
    ] {
        let (given, body) = operator
            .ask(Method::PUT, &path(&anna), Some(wish.clone()))
            .await;
        assert_eq!(given, status, "{wish}: {body}");
    }
    assert_eq!(operator.ask(Method::GET, &flag(&anna), None).await.0, 404);
    assert_eq!(operator.get(&path(&anna)).await["deactivated"], true);

    let wish = json!({ "deactivated": false, "password": "a password of hers" });
    let opened = put(&operator, &anna, wish.clone()).await;
    assert_eq!(
        (&opened["deactivated"], &opened["displayname"]),
        (&json!(false), &json!("anna"))
    );
    assert!(!is_in(&anna).await, "its sessions are over");
    let (status, body) = login(&server, "anna", "a password of hers").await;
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap();
    let anna = User::with_token(&server.url(""), &anna.id, token);
    let (_, rooms) = anna.get("/joined_rooms").await;
    assert_eq!(rooms["joined_rooms"], json!([]));
    anna.join(&room).await;
    anna.say(&room, "back").await;
    let found = bert
        .post("/user_directory/search", json!({ "search_term": "anna" }))
        .await;
    assert_eq!(found.1["results"][0]["user_id"], anna.id, "{}", found.1);
    // Of an open one that is a new password and nothing more.
    put(&operator, &anna, wish).await;
    assert!(!is_in(&anna).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_for_a_closed_account() {
    let service = Appservice::new("irc", "");
    let config = Appservice::config(&[&service]);
    let secret = "open = true\nshared_secret = \"test secret\"\n";
    let server = Server::with(&config.replace("open = true\n", secret), None).await;
    let operator = Operator::of(&server).await;
    let bob = service.ghost(&server, "bob").await;
    assert!(is_in(&bob).await);
    put(&operator, &bob, json!({ "deactivated": true })).await;
    let (status, body) = bob.get("/account/whoami").await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    let wish = json!({ "deactivated": false, "password": "a password of it" });
    put(&operator, &bob, wish).await;
    assert!(is_in(&bob).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_locked_told_what_it_is_and_keeps_sessions_if_wanted() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let anna = server.user("anna").await;
    assert!(is_in(&anna).await);
    let shown = put(&operator, &anna, json!({ "locked": true })).await;
    assert_eq!(shown["locked"], true);
    let (status, body) = anna.get("/account/whoami").await;
    assert_eq!((status, &body["errcode"]), (401, &json!("M_USER_LOCKED")));
    put(
        &operator,
        &anna,
        json!({ "locked": true, "displayname": "A" }),
    )
    .await;
    let shown = put(&operator, &anna, json!({ "locked": false })).await;
    assert_eq!(
        (&shown["locked"], &shown["displayname"]),
        (&json!(false), &json!("A"))
    );
    assert!(is_in(&anna).await);

    for kind in [json!("bot"), json!("support"), Value::Null] {
        let shown = put(&operator, &anna, json!({ "user_type": kind })).await;
        assert_eq!(shown["user_type"], kind);
        let shown = put(&operator, &anna, json!({})).await;
        assert_eq!(shown["user_type"], kind, "what is not said stays");
    }

    let password = |password: &str, more: Value| {
        let mut wish = json!({ "password": password });
        wish.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        wish
    };
    let wish = password("another password", json!({ "logout_devices": false }));
    put(&operator, &anna, wish).await;
    assert!(is_in(&anna).await);
    assert_eq!(login(&server, "anna", "another password").await.0, 200);
    let wish = password("yet another one", json!({}));
    put(&operator, &anna, wish).await;
    assert!(!is_in(&anna).await);

    // Made with all of that at once.
    let bot = User::with_token("", &anna.id.replace("anna", "bot"), "");
    let wish = json!({ "user_type": "bot", "locked": true, "password": "a password of it" });
    let (status, made) = operator.ask(Method::PUT, &path(&bot), Some(wish)).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        (&made["user_type"], &made["locked"]),
        (&json!("bot"), &json!(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_refused_and_changes_nothing() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let (anna, chief) = (server.user("anna").await, server.user("chief").await);
    put(&operator, &chief, json!({ "admin": true })).await;
    let before = operator.get(&path(&anna)).await;
    // What was shown may be sent back.
    assert_eq!(put(&operator, &anna, before.clone()).await, before);
    // So may what a tool adds of its own, and times in its own units.
    let more = json!({ "id": anna.id, "creation_ts": 1 });
    assert_eq!(put(&operator, &anna, more).await, before);
    for wish in [
        json!({ "shadow_banned": true }),
        json!({ "suspended": true }),
        json!({ "name": "@other:x" }),
        json!({ "user_type": "robot" }),
        json!({ "user_type": true }),
        json!({ "locked": "yes" }),
        json!({ "deactivated": "yes" }),
        json!({ "deactivated": true, "locked": true }),
        json!({ "deactivated": true, "password": "a password of hers" }),
        json!({ "logout_devices": true }),
        json!({ "logout_devices": 1, "password": "a password of hers" }),
        json!({ "displayname": "B", "admin": "yes" }),
        json!({ "displayname": "B", "password": "x" }),
        json!([]),
    ] {
        let at = path(&anna);
        let asked = operator.ask(Method::PUT, &at, Some(wish.clone()));
        let (status, body) = asked.await;
        assert_eq!(status, 400, "{wish}: {body}");
        assert!(body["error"].as_str().is_some_and(|it| !it.is_empty()));
    }
    for (user, wish) in [
        (&chief, json!({ "locked": true })),
        (&anna, json!({ "locked": true, "admin": true })),
    ] {
        let (status, body) = operator.ask(Method::PUT, &path(user), Some(wish)).await;
        assert_eq!(status, 403, "{body}");
    }
    let root = User::with_token("", &operator.id, "");
    for wish in [json!({ "deactivated": true }), json!({ "locked": true })] {
        let (status, body) = operator.ask(Method::PUT, &path(&root), Some(wish)).await;
        assert_eq!(status, 403, "{body}");
    }
    assert_eq!(operator.get(&path(&anna)).await, before);
    assert!(is_in(&anna).await && is_in(&chief).await);

    let nobody = User::with_token("", &anna.id.replace("anna", "nobody"), "");
    for wish in [
        json!({ "deactivated": true }),
        json!({ "user_type": "robot" }),
    ] {
        let at = path(&nobody);
        let asked = operator.ask(Method::PUT, &at, Some(wish.clone()));
        let (status, body) = asked.await;
        assert_eq!(status, 400, "{wish}: {body}");
    }
    let wish = json!({ "locked": true, "admin": true });
    let (status, _) = operator.ask(Method::PUT, &path(&nobody), Some(wish)).await;
    assert_eq!(status, 403);
    let (status, _) = operator.ask(Method::GET, &path(&nobody), None).await;
    assert_eq!(status, 404, "nothing is half done");
    let (status, _) = tool(&anna, &operator)
        .ask(Method::PUT, &path(&anna), Some(json!({ "locked": true })))
        .await;
    assert_eq!(status, 403);
}

/// Localparts of a page, and how many there are in all.
async fn list(operator: &Operator, query: &str) -> (Vec<String>, Value) {
    let told = operator.get(&format!("/v2/users{query}")).await;
    let names = told["users"].as_array().unwrap().iter().map(|user| {
        let name = user["name"].as_str().unwrap();
        name[1..].split(':').next().unwrap().to_owned()
    });
    (names.collect(), told["total"].clone())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn accounts_are_listed_filtered_and_in_order() {
    let config = format!("{}shared_secret = \"test secret\"\n", guests::CONFIG);
    let server = Server::with(&config, None).await;
    let operator = Operator::of(&server).await;
    let anna = server.user("anna").await;
    let bert = server.user("bert").await;
    let carl = server.user("carl").await;
    let dora = server.user("dora").await;
    let guest = guests::guest(&server).await;
    let guest = guest.id[1..].split(':').next().unwrap();
    put(&operator, &anna, json!({ "displayname": "Zoë 100%_" })).await;
    put(
        &operator,
        &bert,
        json!({ "user_type": "bot", "avatar_url": "mxc://a/b" }),
    )
    .await;
    put(&operator, &carl, json!({ "deactivated": true })).await;
    put(&operator, &dora, json!({ "locked": true })).await;

    let told = operator.get("/v2/users?user_id=bert").await;
    let shown = operator.get(&path(&bert)).await;
    let listed = &told["users"][0];
    for field in [
        "name",
        "displayname",
        "avatar_url",
        "user_type",
        "admin",
        "is_guest",
        "deactivated",
        "erased",
        "locked",
        "shadow_banned",
    ] {
        assert_eq!(listed[field], shown[field], "{field}");
    }
    let created = listed["creation_ts"].as_i64().unwrap();
    assert_eq!(created / 1_000, shown["creation_ts"].as_i64().unwrap());

    let all = ["anna", "bert", "carl", "dora", guest, "root"];
    for (query, names) in [
        ("", vec!["anna", "bert", guest, "root"]),
        ("?deactivated=true&locked=true", all.to_vec()),
        (
            "?deactivated=true",
            vec!["anna", "bert", "carl", guest, "root"],
        ),
        ("?locked=true", vec!["anna", "bert", "dora", guest, "root"]),
        ("?guests=false", vec!["anna", "bert", "root"]),
        ("?admins=true", vec!["root"]),
        ("?admins=false&guests=false", vec!["anna", "bert"]),
        ("?name=BER", vec!["bert"]),
        ("?name=zo%C3%AB", vec!["anna"]),
        ("?name=%25_", vec!["anna"]),
        ("?name=%25b", vec![]),
        ("?name=bert&user_id=anna", vec!["bert"]),
        ("?user_id=@Anna:", vec!["anna"]),
        ("?user_id=zo%C3%AB", vec![]),
        ("?user_id=a%00", vec![]),
        ("?name=a%00", vec![]),
        ("?dir=b&guests=false", vec!["root", "bert", "anna"]),
        ("?order_by=name&guests=false", vec!["anna", "bert", "root"]),
        (
            "?order_by=displayname&guests=false",
            vec!["anna", "bert", "root"],
        ),
        ("?order_by=admin&guests=false", vec!["anna", "bert", "root"]),
        (
            "?order_by=admin&guests=false&dir=b",
            vec!["root", "anna", "bert"],
        ),
        (
            "?order_by=is_guest&dir=b",
            vec![guest, "anna", "bert", "root"],
        ),
        (
            "?order_by=user_type&guests=false",
            vec!["bert", "anna", "root"],
        ),
        (
            "?order_by=creation_ts&guests=false",
            vec!["root", "anna", "bert"],
        ),
        (
            "?order_by=creation_ts&dir=b&guests=false",
            vec!["bert", "anna", "root"],
        ),
        (
            "?order_by=locked&dir=b&locked=true&guests=false",
            vec!["dora", "anna", "bert", "root"],
        ),
        (
            "?order_by=deactivated&dir=b&deactivated=true&guests=false",
            vec!["carl", "anna", "bert", "root"],
        ),
    ] {
        let (found, total) = list(&operator, query).await;
        assert_eq!(
            (found, total),
            (owned(&names), json!(names.len())),
            "{query}"
        );
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_listed_page_by_page_to_administrators_alone() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    for name in ["anna", "bert", "carl", "dora"] {
        server.user(name).await;
    }
    let mut names = Vec::new();
    let mut next = Some("0".to_owned());
    while let Some(from) = next {
        let told = operator
            .get(&format!("/v2/users?limit=2&from={from}"))
            .await;
        assert_eq!(told["total"], 5);
        for user in told["users"].as_array().unwrap() {
            names.push(user["displayname"].as_str().unwrap().to_owned());
        }
        next = told["next_token"].as_str().map(ToOwned::to_owned);
    }
    assert_eq!(names, ["anna", "bert", "carl", "dora", "root"]);
    for query in ["?from=5", "?from=9223372036854775807", "?limit=0"] {
        let told = operator.get(&format!("/v2/users{query}")).await;
        assert_eq!(told, json!({ "users": [], "total": 5 }), "{query}");
    }
    let (found, _) = list(&operator, "?limit=9223372036854775807&from=3").await;
    assert_eq!(found, ["dora", "root"]);
    for bad in [
        "?from=-1",
        "?from=some",
        "?limit=-1",
        "?limit=many",
        "?dir=x",
        "?guests=perhaps",
        "?order_by=shadow_banned",
        "?order_by=avatar_url",
        "?order_by=last_seen_ts",
        "?order_by=",
        "?not_user_type=bot",
    ] {
        let (status, body) = operator
            .ask(Method::GET, &format!("/v2/users{bad}"), None)
            .await;
        let told = (status, &body["errcode"]);
        assert_eq!(told, (400, &json!("M_INVALID_PARAM")), "{bad}");
    }
    let eve = tool(&server.user("eve").await, &operator);
    assert_eq!(eve.ask(Method::GET, "/v2/users", None).await.0, 403);
}
