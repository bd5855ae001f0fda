//! What the server tells its users.

use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{enc, operator::Operator, server::Server, user::User};

const CONFIG: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
    [rooms]\nencryption = \"all\"\n\
    [server_notices]\nlocalpart = \"mitteilungen\"\ndisplay_name = \"Mitteilungen\"\n\
    room_topic = \"What you need to know\"\n";

async fn send(operator: &Operator, txn: Option<&str>, to: &str) -> (u16, Value) {
    let content = json!({ "msgtype": "m.text", "body": "We close at six." });
    let notice = Some(json!({ "user_id": to, "content": content }));
    match txn {
        None => {
            operator
                .ask(Method::POST, "/v1/send_server_notice", notice)
                .await
        }
        Some(txn) => {
            let path = format!("/v1/send_server_notice/{txn}");
            operator.ask(Method::PUT, &path, notice).await
        }
    }
}

/// The invitation to the room of notices.
async fn invited(user: &mut User) -> String {
    loop {
        let sync = user.sync(30_000).await;
        let rooms = sync["rooms"]["invite"].as_object();
        if let Some((room, invite)) = rooms.and_then(|rooms| rooms.iter().next()) {
            let mut events = invite["invite_state"]["events"].as_array().unwrap().iter();
            let ours = |event: &Value| {
                event["sender"]
                    .as_str()
                    .unwrap()
                    .starts_with("@mitteilungen:")
            };
            assert!(events.all(ours), "{invite}");
            return room.clone();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_reach_a_user_in_one_room_that_nobody_else_speaks_in() {
    let mut server = Server::with(CONFIG, None).await;
    let admin = Operator::of(&server).await;
    let mut alice = server.user("alice").await;
    let (base, token, id) = (admin.base.clone(), alice.token.clone(), alice.id.clone());
    let nobody = Operator { base, token, id };
    assert_eq!(send(&nobody, None, &alice.id).await.0, 403);
    for (to, status, code) in [
        (
            "@nobody:elsewhere.example".to_owned(),
            400,
            "M_INVALID_PARAM",
        ),
        (format!("@nobody:{}", server.name), 404, "M_NOT_FOUND"),
    ] {
        let (given, body) = send(&admin, None, &to).await;
        assert_eq!((given, &body["errcode"]), (status, &json!(code)), "{body}");
    }

    // Two at once make one room, and a request that comes again sends nothing more.
    let (one, other) = tokio::join!(
        send(&admin, Some("1"), &alice.id),
        send(&admin, Some("2"), &alice.id)
    );
    assert_eq!((one.0, other.0), (200, 200), "{one:?} {other:?}");
    let again = send(&admin, Some("1"), &alice.id).await;
    assert_eq!(again, one);
    let room = invited(&mut alice).await;

    // She is told whether she likes it or not, and says nothing.
    let action = |action: &str| format!("/rooms/{}/{action}", enc(&room));
    let (status, body) = alice.post(&action("leave"), json!({})).await;
    let refused = json!("M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    assert_eq!((status, &body["errcode"]), (403, &refused), "{body}");
    alice.join(&room).await;
    let history = alice.history(&room).await;
    assert_eq!(history.len(), 2, "{history:?}");
    let tags = format!("/user/{}/rooms/{}/tags", enc(&alice.id), enc(&room));
    let (_, tags) = alice.get(&tags).await;
    assert!(tags["tags"]["m.server_notice"].is_object(), "{tags}");
    let (status, _) = alice.get(&action("state/m.room.encryption")).await;
    assert_eq!(status, 404, "the server has no keys");
    let (status, body) = alice
        .put(
            &action("send/m.room.message/1"),
            json!({ "msgtype": "m.text", "body": "Why?" }),
        )
        .await;
    assert_eq!(status, 403, "{body}");

    // Once read it may go, and comes back with the next, also after a restart.
    assert_eq!(alice.post(&action("leave"), json!({})).await.0, 200);
    alice.sync(0).await;
    server.kill();
    server.restart().await;
    let (status, body) = send(&admin, None, &alice.id).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(invited(&mut alice).await, room);
}
