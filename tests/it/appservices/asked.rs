//! What application services are asked.

use serde_json::{Value, json};

use crate::rig::{appservice::Appservice, enc, server::Server, user::User};

#[tokio::test(flavor = "multi_thread")]
async fn networks_users_and_rooms_are_asked_of_services() {
    let irc = Appservice::start("irc", "protocols: [irc]\n").await;
    let server = Server::with(&Appservice::config(&[&irc]), None).await;
    irc.make_users_on(&server);
    let alice = server.user("alice").await;

    // A user comes into being by being looked at; one who is none of its is not asked for.
    let ghost = format!("@_irc_bob:{}", server.name);
    let (status, profile) = alice.get(&format!("/profile/{}", enc(&ghost))).await;
    assert_eq!((status, &profile["displayname"]), (200, &json!("_irc_bob")));
    let other = format!("/profile/{}", enc(&format!("@carol:{}", server.name)));
    assert_eq!(alice.get(&other).await.0, 404);
    let asked = irc.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let instance = networks(&irc, &alice).await;
    lists(&irc.bot(&server), &alice, &instance).await;
}

/// Other networks; returns the id of one.
async fn networks(irc: &Appservice, alice: &User) -> String {
    irc.handle(
        |path| match path.strip_prefix("/_matrix/app/v1/thirdparty") {
            Some("/protocol/irc") => {
                let instance = json!({ "desc": "Libera", "fields": {}, "network_id": "libera" });
                let protocol = json!({
                    "user_fields": ["nick"], "location_fields": ["channel"], "icon": "mxc://a/b",
                    "field_types": {}, "instances": [instance],
                });
                (200, protocol)
            }
            Some("/user/irc?nick=bob" | "/user?userid=%40_irc_bob%3Ax") => (
                200,
                json!([{ "userid": "@_irc_bob:x", "protocol": "irc", "fields": {} }]),
            ),
            Some("/location/irc?channel=%23a") => (
                200,
                json!([{ "alias": "#_irc_a:x", "protocol": "irc", "fields": {} }]),
            ),
            _ => (404, json!({ "errcode": "M_NOT_FOUND" })),
        },
    );
    let (_, protocols) = alice.get("/thirdparty/protocols").await;
    let instance = protocols["irc"]["instances"][0]["instance_id"]
        .as_str()
        .unwrap();
    assert_eq!(instance, "irc|libera");
    assert_eq!(
        alice.get("/thirdparty/protocol/irc").await.1,
        protocols["irc"]
    );
    assert_eq!(alice.get("/thirdparty/protocol/fax").await.0, 404);
    for path in [
        "/thirdparty/user/irc?nick=bob",
        "/thirdparty/user?userid=@_irc_bob:x",
    ] {
        let (status, users) = alice.get(path).await;
        assert_eq!(
            (status, &users[0]["userid"]),
            (200, &json!("@_irc_bob:x")),
            "{path}"
        );
    }
    let (_, places) = alice.get("/thirdparty/location/irc?channel=%23a").await;
    assert_eq!(places[0]["alias"], json!("#_irc_a:x"));
    let nothing = alice.get("/thirdparty/location?alias=%23a:x").await;
    assert_eq!(nothing, (200, json!([])));
    instance.to_owned()
}

/// Rooms of a network have a list of their own.
async fn lists(bot: &User, alice: &User, instance: &str) {
    let room = bot.create_room(json!({ "preset": "public_chat" })).await;
    let list = format!("/directory/list/appservice/libera/{}", enc(&room));
    let (status, body) = bot.put(&list, json!({ "visibility": "public" })).await;
    assert_eq!(status, 200, "{body}");
    let wish = json!({ "visibility": "public" });
    assert_eq!(alice.put(&list, wish).await.0, 403);
    let listed = async |wish: Value| {
        let (status, page) = alice.post("/publicRooms", wish).await;
        assert_eq!(status, 200, "{page}");
        page["chunk"].as_array().unwrap().len()
    };
    assert_eq!(listed(json!({})).await, 0);
    assert_eq!(
        listed(json!({ "third_party_instance_id": instance })).await,
        1
    );
    assert_eq!(
        listed(json!({ "third_party_instance_id": "irc|other" })).await,
        0
    );
    assert_eq!(listed(json!({ "include_all_networks": true })).await, 1);
    bot.put(&list, json!({ "visibility": "private" })).await;
    assert_eq!(listed(json!({ "include_all_networks": true })).await, 0);
}

async fn ping(of: &User, id: &str) -> (u16, String) {
    let path = format!("/../v1/appservice/{id}/ping");
    let wish = json!({ "transaction_id": "mautrix" });
    let (status, body) = of.post(&path, wish).await;
    if status == 200 {
        assert!(body["duration_ms"].is_u64(), "{body}");
    }
    (
        status,
        body["errcode"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_tells_what_is_wrong() {
    let mut irc = Appservice::start("irc", "").await;
    let mute = Appservice::new("mute", "");
    let url = "url: http";
    mute.edit(url, "url: null # http");
    let server = Server::with(&Appservice::config(&[&irc, &mute]), None).await;
    let bot = irc.bot(&server);
    irc.handle(|_| (200, json!({})));
    assert_eq!(ping(&bot, "irc").await, (200, String::new()));
    assert_eq!(irc.asked(), ["/_matrix/app/v1/ping"]);
    assert_eq!(ping(&bot, "mute").await, (403, "M_FORBIDDEN".to_owned()));
    assert_eq!(
        ping(&mute.bot(&server), "mute").await,
        (400, "M_URL_NOT_SET".to_owned())
    );
    irc.handle(|_| (418, json!({ "errcode": "TEAPOT" })));
    assert_eq!(ping(&bot, "irc").await, (502, "M_BAD_STATUS".to_owned()));
    irc.down();
    crate::rig::eventually("nobody to answer", async || {
        let answer = ping(&bot, "irc").await;
        (answer == (502, "M_CONNECTION_FAILED".to_owned())).then_some(())
    })
    .await;
    let alice = server.user("alice").await;
    assert_eq!(ping(&alice, "irc").await, (403, "M_FORBIDDEN".to_owned()));
}
