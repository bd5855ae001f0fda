//! Which media are used, and how much of them users have, as administrators see it.

use reqwest::Method;
use serde_json::{Value, json};

use super::media::{download, get, parts, upload};
use crate::rig::{enc, operator::Operator, server::Server, user::User};

async fn is_served(user: &User, mxc: &str) -> bool {
    let answer = get(user, &download(mxc)).await;
    let status = answer.status().as_u16();
    assert!([200, 404].contains(&status), "{status}");
    status == 200
}

async fn put(user: &User, path: &str, body: Value) {
    let (status, body) = user.put(path, body).await;
    assert_eq!(status, 200, "{body}");
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_what_uploads_take() {
    let server = Server::start().await;
    let root = Operator::of(&server).await;
    let (anna, bert) = (server.user("anna").await, server.user("bert").await);
    for size in [10, 20] {
        upload(&anna, "", "text/plain", &vec![b'a'; size]).await;
    }
    upload(&bert, "", "text/plain", &[b'b'; 500]).await;
    let path = "/v1/statistics/users/media";
    let told = root.get(path).await;
    let of = |user: &User, name: &str, count: i64, bytes: i64| {
        json!({
            "user_id": user.id, "displayname": name, "media_count": count, "media_length": bytes,
        })
    };
    let (first, second) = (of(&anna, "anna", 2, 30), of(&bert, "bert", 1, 500));
    assert_eq!(told, json!({ "users": [first, second], "total": 2 }));
    let next_year = now_ms() + 365 * 24 * 3_600_000;
    for (query, users, total) in [
        ("?dir=b", vec![&second, &first], 2),
        ("?order_by=media_length&dir=b", vec![&second, &first], 2),
        ("?order_by=media_count", vec![&second, &first], 2),
        ("?order_by=displayname", vec![&first, &second], 2),
        ("?search_term=BERT", vec![&second], 1),
        ("?limit=1", vec![&first], 2),
        ("?from=1", vec![&second], 2),
        (&format!("?from_ts={next_year}"), vec![], 0),
        ("?until_ts=1", vec![], 0),
    ] {
        let told = root.get(&format!("{path}{query}")).await;
        assert_eq!(
            (&told["users"], &told["total"]),
            (&json!(users), &json!(total)),
            "{query}"
        );
        assert_eq!(
            told["next_token"] == json!(1),
            query == "?limit=1",
            "{query}"
        );
    }
    for bad in [
        "?from=-1",
        "?limit=-1",
        "?limit=many",
        "?dir=x",
        "?order_by=color",
        "?search_term=",
        "?from_ts=5&until_ts=5",
    ] {
        let (status, body) = root.ask(Method::GET, &format!("{path}{bad}"), None).await;
        assert_eq!(
            (status, &body["errcode"]),
            (400, &json!("M_INVALID_PARAM")),
            "{bad}"
        );
    }
    let nobody = Operator {
        base: root.base.clone(),
        token: anna.token.clone(),
        id: anna.id.clone(),
    };
    assert_eq!(nobody.ask(Method::GET, path, None).await.0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_delete_old_uploads_and_keep_pictures() {
    let server = Server::start().await;
    let operator = Operator::of(&server).await;
    let anna = server.user("anna").await;
    let make = async |size: usize| upload(&anna, "", "text/plain", &vec![b'a'; size]).await;
    let (own, of_room, safe) = (make(100).await, make(101).await, make(102).await);
    let (small, large) = (make(5).await, make(103).await);
    put(
        &anna,
        &format!("/profile/{}/avatar_url", enc(&anna.id)),
        json!({ "avatar_url": own }),
    )
    .await;
    let room = anna.create_room(json!({})).await;
    let avatar = format!("/rooms/{}/state/m.room.avatar", enc(&room));
    put(&anna, &avatar, json!({ "url": of_room })).await;
    let protect = format!("/v1/media/protect/{}", parts(&safe).1);
    assert_eq!(
        operator
            .ask(Method::POST, &protect, Some(json!({})))
            .await
            .0,
        200
    );

    let path = "/v1/media/delete";
    let later = now_ms() + 3_600_000;
    let ask = async |query: &str| {
        operator
            .ask(Method::POST, &format!("{path}{query}"), None)
            .await
    };
    for bad in [
        "",
        "?before_ts=-1",
        // Seconds.
        "?before_ts=1700000000",
        &format!("?before_ts={later}&size_gt=-1"),
        &format!("?before_ts={later}&keep_profiles=perhaps"),
    ] {
        let (status, body) = ask(bad).await;
        assert_eq!(
            (status, &body["errcode"]),
            (400, &json!("M_INVALID_PARAM")),
            "{bad}"
        );
    }
    let none = json!({ "deleted_media": [], "total": 0 });
    assert_eq!(ask("?before_ts=1600000000000").await, (200, none));
    let told = ask(&format!("?before_ts={later}&size_gt=5")).await;
    let gone = json!({ "deleted_media": [parts(&large).1], "total": 1 });
    assert_eq!(told, (200, gone));
    for (mxc, is_there) in [
        (&own, true),
        (&of_room, true),
        (&safe, true),
        (&small, true),
        (&large, false),
    ] {
        assert_eq!(is_served(&anna, mxc).await, is_there, "{mxc}");
    }

    // A picture that is one no more is no picture.
    put(&anna, &avatar, json!({})).await;
    let told = ask(&format!("?before_ts={later}&size_gt=5")).await;
    let gone = json!({ "deleted_media": [parts(&of_room).1], "total": 1 });
    assert_eq!(told, (200, gone));
    // As older tools ask for it, of this server alone.
    let query = format!("delete?before_ts={later}&keep_profiles=false");
    let elsewhere = format!("/v1/media/other.example/{query}");
    assert_eq!(operator.ask(Method::POST, &elsewhere, None).await.0, 400);
    let here = format!("/v1/media/{}/{query}", server.name);
    let (status, body) = operator.ask(Method::POST, &here, None).await;
    assert_eq!((status, &body["total"]), (200, &json!(2)), "{body}");
    assert!(!is_served(&anna, &own).await && !is_served(&anna, &small).await);
    assert!(is_served(&anna, &safe).await);
}
