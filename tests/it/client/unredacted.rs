//! What redacted events said, for those who may redact (MSC2815).

use serde_json::{Value, json};

use crate::{
    federation::rooms::two_servers,
    rig::{enc, server::Server, user::User},
};

pub(super) const CONFIG: &str = "[registration]\nopen = true\n[rooms]\nkeep_redacted_days = 7\n";

pub(super) async fn redact(user: &User, room: &str, event: &str) {
    let path = format!("/rooms/{}/redact/{}/1", enc(room), enc(event));
    let (status, body) = user.put(&path, json!({ "reason": "by mistake" })).await;
    assert_eq!(status, 200, "{body}");
}

pub(super) async fn look(user: &User, room: &str, event: &str, wanted: &str) -> (u16, Value) {
    let wanted = format!("fi.mau.msc2815.include_unredacted_content={wanted}");
    let path = format!("/rooms/{}/event/{}?{wanted}", enc(room), enc(event));
    user.get(&path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_redact_sees_for_some_days_what_was_said() {
    let server = Server::with(CONFIG, None).await;
    let (anna, bernd) = (server.user("anna").await, server.user("bernd").await);
    let versions = server.document("/_matrix/client/versions").await;
    assert_eq!(versions["unstable_features"]["fi.mau.msc2815"], true);
    let room = anna.create_room(json!({ "preset": "public_chat" })).await;
    bernd.join(&room).await;
    let id = bernd.say(&room, "what bernd said").await;
    let (_, event) = look(&anna, &room, &id, "true").await;
    assert_eq!(event["content"]["body"], "what bernd said", "not redacted");
    redact(&bernd, &room, &id).await;

    let (status, event) = look(&anna, &room, &id, "true").await;
    assert_eq!(status, 200, "{event}");
    assert_eq!(event["content"]["body"], "what bernd said");
    assert_eq!(event["event_id"], *id);
    let because = &event["unsigned"]["redacted_because"];
    assert_eq!(because["content"]["reason"], "by mistake");
    for wanted in ["false", ""] {
        let path = format!("/rooms/{}/event/{}", enc(&room), enc(&id));
        let (_, event) = match wanted {
            "" => anna.get(&path).await,
            wanted => look(&anna, &room, &id, wanted).await,
        };
        assert_eq!(event["content"], json!({}));
    }
    assert_eq!(look(&anna, &room, &id, "maybe").await.0, 400);
    let (status, body) = look(&bernd, &room, &id, "true").await;
    assert_eq!((status, &body["errcode"]), (403, &json!("M_FORBIDDEN")));
    let clara = server.user("clara").await;
    assert_eq!(
        look(&clara, &room, &id, "true").await.0,
        404,
        "from outside"
    );

    let mut database = server.database().await;
    let gone = sqlx::query("UPDATE event_unredacted SET kept_ts = 0");
    gone.execute(&mut database).await.unwrap();
    let (status, body) = look(&anna, &room, &id, "true").await;
    assert_eq!(status, 404);
    let code = "FI.MAU.MSC2815_UNREDACTED_CONTENT_DELETED";
    assert_eq!(body["errcode"], code);
    assert_eq!(body["fi.mau.msc2815.content_keep_ms"], 7 * 86_400_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_kept_nobody_sees_it() {
    let (_folder, server, other) = two_servers().await;
    let (mut anna, bernd) = (server.user("anna").await, other.user("bernd").await);
    let room = anna.create_room(json!({ "preset": "public_chat" })).await;
    bernd.join_via(&room, &server.name).await;
    let id = bernd.say(&room, "what bernd said").await;
    anna.hears("what bernd said").await;
    redact(&bernd, &room, &id).await;
    anna.wait_for("the redaction", |event| event["type"] == "m.room.redaction")
        .await;
    let (status, event) = look(&anna, &room, &id, "true").await;
    assert_eq!((status, &event["content"]), (200, &json!({})));
    let mut database = server.database().await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM event_unredacted")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(count, 0);
}
