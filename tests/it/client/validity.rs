//! Accounts that end unless they are renewed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{
    eventually,
    mailbox::{Mailbox, at, config, link},
    operator::Operator,
    pages,
    server::Server,
    user::User,
};

const DAY_MS: i64 = 24 * 3_600_000;
const SEND: &str = "/../unstable/account_validity/send_mail";

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// An administrator sets the end.
async fn set(admin: &Operator, user: &User, until: Option<i64>, mails: bool) -> i64 {
    let mut body = json!({ "user_id": user.id, "enable_renewal_emails": mails });
    if let Some(until) = until {
        body["expiration_ts"] = json!(until);
    }
    let path = "/v1/account_validity/validity";
    let (status, answer) = admin.ask(Method::POST, path, Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    answer["expiration_ts"].as_i64().unwrap()
}

fn has_ended(answer: &(u16, Value)) {
    let told = (answer.0, &answer.1["errcode"]);
    assert_eq!(
        told,
        (403, &json!("ORG_MATRIX_EXPIRED_ACCOUNT")),
        "{}",
        answer.1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_have_no_end_unless_the_operator_wants_it() {
    let server = Server::start().await;
    let admin = Operator::of(&server).await;
    let anna = server.user("anna").await;
    let (status, body) = anna.post(SEND, json!({})).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_UNRECOGNIZED")));
    let path = "/v1/account_validity/validity";
    let wish = Some(json!({ "user_id": anna.id, "expiration_ts": 1 }));
    let (status, body) = admin.ask(Method::POST, path, wish).await;
    assert_eq!((status, &body["errcode"]), (404, &json!("M_UNRECOGNIZED")));
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a story")]
async fn an_account_that_has_ended_does_nothing_until_it_is_renewed() {
    let mailbox = Mailbox::start();
    let more = "[account_validity]\nperiod_days = 30\nrenew_at_days = 7\n";
    let server = Server::with(&format!("{}{more}", config(&mailbox)), None).await;
    let node = server.node().await;
    let admin = Operator::of(&server).await;
    let (mut anna, bert) = (server.user("anna").await, server.user("bert").await);
    mailbox.add(&server, &anna, "anna@amt.example").await;
    let base = server.url("/_synapse/admin");
    let (token, id) = (anna.token.clone(), anna.id.clone());
    let nobody = Operator { base, token, id };
    let path = "/v1/account_validity/validity";
    for (who, wish, status) in [
        (&nobody, json!({ "user_id": bert.id }), 403),
        (&admin, json!({ "user_id": "@nobody:x" }), 404),
        (&admin, json!({ "user_id": "nobody" }), 400),
        (&admin, json!({}), 400),
    ] {
        let (given, body) = who.ask(Method::POST, path, Some(wish)).await;
        assert_eq!(given, status, "{body}");
    }

    // A sync that waits, here and at the other node, is cut off.
    anna.sync(0).await;
    let (mut here, mut there) = (anna.again(), anna.at(&node));
    for waiting in [&mut here, &mut there] {
        waiting.since.clone_from(&anna.since);
    }
    let before = server.figure("sync_waiting").await;
    let wait = |user: User| {
        tokio::spawn(async move {
            let since = user.since.clone().unwrap();
            user.get(&format!("/sync?timeout=60000&since={since}"))
                .await
        })
    };
    let waiting = [wait(here), wait(there)];
    eventually("a sync that waits", async || {
        (server.figure("sync_waiting").await > before).then_some(())
    })
    .await;
    assert_eq!(set(&admin, &anna, Some(1_000), false).await, 1_000);
    for waiting in waiting {
        has_ended(&waiting.await.unwrap());
    }
    has_ended(&anna.get("/account/whoami").await);
    has_ended(&anna.post("/createRoom", json!({})).await);
    assert_eq!(bert.get("/account/whoami").await.0, 200);

    // A mail renews it: not by being opened, and once.
    let (status, body) = anna.post(SEND, json!({})).await;
    assert_eq!((status, &body), (200, &json!({})));
    let first = mailbox.get("anna@amt.example", 2).await;
    let text = first["text"].as_str().unwrap();
    assert!(
        text.contains("01.01.1970") && text.contains("1970-01-01"),
        "{text}"
    );
    assert_eq!(anna.post(SEND, json!({})).await.0, 200);
    let mail = mailbox.get("anna@amt.example", 3).await;
    let path = |mail: &Value| {
        let url = at(&server, &link(mail));
        url.strip_prefix(&server.url("")).unwrap().to_owned()
    };
    let page = pages::open(&server, &path(&mail), "en").await;
    assert_eq!(page.status, 200);
    has_ended(&anna.get("/account/whoami").await);
    let renew = async |token: &str| {
        let path = "/_matrix/client/unstable/account_validity/renew";
        pages::send(&server, path, &[("token", token)]).await.status
    };
    let old = pages::open(&server, &path(&first), "en").await;
    assert_eq!(renew(&old.hidden("token")).await, 404);
    assert_eq!(renew("").await, 404);
    assert_eq!(renew(&page.hidden("token")).await, 200);
    assert_eq!(renew(&page.hidden("token")).await, 404);
    assert_eq!(anna.get("/account/whoami").await.0, 200);
    let there = anna.at(&node);
    eventually("the other node to know", async || {
        (there.get("/account/whoami").await.0 == 200).then_some(())
    })
    .await;

    // Who has no address gets no mail, and may log out.
    set(&admin, &bert, Some(1_000), true).await;
    let (status, body) = bert.post(SEND, json!({})).await;
    assert_eq!(
        (status, &body["errcode"]),
        (400, &json!("M_THREEPID_NOT_FOUND"))
    );
    let until = set(&admin, &bert, None, true).await;
    assert!(until > now_ms() + 29 * DAY_MS);
    assert_eq!(bert.get("/account/whoami").await.0, 200);
    set(&admin, &bert, Some(1_000), true).await;
    assert_eq!(bert.post("/logout", json!({})).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_will_end_soon_is_mailed_once() {
    let mailbox = Mailbox::start();
    let more = "[account_validity]\nperiod_days = 30\nrenew_at_days = 7\n";
    let mut server = Server::with(&format!("{}{more}", config(&mailbox)), None).await;
    let admin = Operator::of(&server).await;
    let mut users = Vec::new();
    for name in ["anna", "bert", "carl", "dora"] {
        let user = server.user(name).await;
        mailbox
            .add(&server, &user, &format!("{name}@amt.example"))
            .await;
        users.push(user);
    }
    let soon = now_ms() + 6 * DAY_MS;
    let [anna, bert, carl, dora] = &users[..] else {
        unreachable!("four were made")
    };
    set(&admin, anna, Some(soon), true).await;
    set(&admin, bert, Some(soon), false).await;
    set(&admin, carl, Some(now_ms() + 8 * DAY_MS), true).await;
    server.stop();
    server.restart().await;
    let mail = mailbox.get("anna@amt.example", 2).await;
    let url = at(&server, &link(&mail));
    let path = url.strip_prefix(&server.url("")).unwrap();
    let page = pages::open(&server, path, "de").await;
    assert!(page.html.contains("<html lang=\"de\">"), "{}", page.html);

    // The next run mails another, and nobody twice.
    set(&admin, dora, Some(soon + 1), true).await;
    server.stop();
    server.restart().await;
    mailbox.get("dora@amt.example", 2).await;
    for (name, mails) in [("anna", 2), ("bert", 1), ("carl", 1)] {
        let got = mailbox.mails(&format!("{name}@amt.example"));
        assert_eq!(got.len(), mails, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_of_before_end_on_different_days() {
    let mut server = Server::start().await;
    for name in ["anna", "bert"] {
        server.user(name).await;
    }
    let mut db = server.database().await;
    // As if they were a year old.
    let year_ago = now_ms() - 365 * DAY_MS;
    sqlx::query("UPDATE account SET created_ts = $1")
        .bind(year_ago)
        .execute(&mut db)
        .await
        .unwrap();
    drop(db);
    let on = "[account_validity]\nperiod_days = 100\n[rate_limits]";
    server.reconfigure("[rate_limits]", on);
    server.stop();
    server.restart().await;
    let mut db = server.database().await;
    let ends = eventually("ends of accounts", async || {
        let query = "SELECT valid_until_ts FROM account WHERE valid_until_ts IS NOT NULL";
        let ends: Vec<i64> = sqlx::query_scalar(query).fetch_all(&mut db).await.unwrap();
        (ends.len() == 2).then_some(ends)
    })
    .await;
    for end in &ends {
        assert!((now_ms() + 89 * DAY_MS..=now_ms() + 100 * DAY_MS).contains(end));
    }
    assert_ne!(ends[0], ends[1]);
}
