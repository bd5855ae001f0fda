//! Invitations of third-party identifiers: an identity server binds one, and the invitation comes.

use serde_json::{Value, json};

use super::rooms::two_servers;
use crate::rig::{
    enc,
    http::{self, Ask as _},
    scripted::{Answer, Scripted, event::Key, server_and_peer},
    server::Server,
    user::User,
};

/// What an identity server signs for a user.
fn signed(key: &Key, user: &str, token: &str) -> Value {
    serde_json::to_value(key.sign(json!({ "mxid": user, "token": token }))).unwrap()
}

/// Invites an identifier to a room; the identity server has that key.
async fn offer(user: &User, room: &str, token: &str, key: &Key, validity_url: &str) {
    let path = format!(
        "/rooms/{}/state/m.room.third_party_invite/{token}",
        enc(room)
    );
    let content = json!({
        "display_name": "c...@example.org", "public_key": key.public(),
        "key_validity_url": validity_url,
    });
    let (status, body) = user.put(&path, content).await;
    assert_eq!(status, 200, "{body}");
}

async fn member(user: &User, room: &str, target: &str) -> Value {
    let path = format!(
        "/rooms/{}/state/m.room.member/{}?format=event",
        enc(room),
        enc(target)
    );
    user.get(&path).await.1
}

/// Tells a server what an identity server would.
async fn bind(server: &Server, method: &str, body: &Value) -> (u16, Value) {
    let http = http::client();
    let url = server.url("/_matrix/federation/v1/3pid/onbind");
    let request = http.request(method.parse().unwrap(), url);
    let answer = request.body(body.to_string()).ask().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn pending(room: &str, sender: &str, user: &str, signed: &Value) -> Value {
    json!({
        "medium": "email", "address": "c@example.org", "mxid": user, "room_id": room,
        "sender": sender, "signed": signed,
    })
}

fn bound(user: &str, invites: &[Value]) -> Value {
    json!({ "medium": "email", "address": "c@example.org", "mxid": user, "invites": invites })
}

/// Asks a server to invite a user of the peer, in the name of a sender.
async fn exchange(
    peer: &Scripted,
    server: &Server,
    room: &str,
    (sender, user): (&str, &str),
    signed: &Value,
) -> (u16, Value) {
    let content = json!({ "membership": "invite", "third_party_invite": {
        "display_name": "Bob", "signed": signed,
    }});
    let body = json!({
        "type": "m.room.member", "room_id": room, "sender": sender, "state_key": user,
        "content": content,
    });
    let room = enc(room);
    let path = format!("/_matrix/federation/v1/exchange_third_party_invite/{room}");
    peer.call(server, "PUT", &path, Some(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_its_user_invited_by_what_an_identity_server_signed() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let alice = server.user("alice").await;
    let other = server.user("other").await;
    let (identity, wrong) = (Key::new("id.example", "0"), Key::new("id.example", "0"));
    let room = alice.create_room(json!({})).await;
    let url = format!("https://{}/_matrix/identity/v2/pubkey/isvalid", peer.name);
    offer(&alice, &room, "tok", &identity, &url).await;
    let bob = peer.user("bob");
    let ask = async |who: (&str, &str), signed: &Value| {
        exchange(&peer, &server, &room, who, signed).await
    };
    peer.route_to("pubkey", Answer::ok(json!({ "valid": false })));
    let good = signed(&identity, &bob, "tok");
    let mut changed = good.clone();
    changed["mxid"] = json!(peer.user("eve"));
    let elsewhere = format!("@bob:{}", "elsewhere.example");
    for (what, who, signed, expected) in [
        ("taken back", (&*alice.id, &*bob), &good, 403),
        (
            "another key",
            (&*alice.id, &*bob),
            &signed(&wrong, &bob, "tok"),
            403,
        ),
        (
            "another token",
            (&*alice.id, &*bob),
            &signed(&identity, &bob, "no"),
            403,
        ),
        ("another user", (&*alice.id, &*peer.user("eve")), &good, 403),
        ("changed", (&*alice.id, &*peer.user("eve")), &changed, 403),
        (
            "another server",
            (&*alice.id, &*elsewhere),
            &signed(&identity, &elsewhere, "tok"),
            400,
        ),
        ("a sender elsewhere", (&*bob, &*bob), &good, 400),
        ("nothing signed", (&*alice.id, &*bob), &Value::Null, 400),
    ] {
        let (status, body) = ask(who, signed).await;
        assert_eq!(status, expected, "{what}: {body}");
    }
    peer.route_to("pubkey", Answer::ok(json!({ "valid": true })));
    // Not by who did not invite the identifier, though they are ours.
    let (status, body) = ask((&other.id, &bob), &good).await;
    assert_eq!(status, 403, "{body}");
    assert!(peer.asked("invite").is_empty());
    let (status, body) = ask((&alice.id, &bob), &good).await;
    assert_eq!((status, body), (200, json!({})));
    assert_eq!(peer.asked("invite").len(), 1);
    let asked = peer.asked("pubkey").pop().unwrap();
    assert_eq!(asked.param("public_key"), identity.public());
    let event = member(&alice, &room, &bob).await;
    assert_eq!(event["sender"], alice.id.as_str(), "{event}");
    let invite = &event["content"]["third_party_invite"];
    assert_eq!(invite["display_name"], "c...@example.org");
    assert_eq!(invite["signed"]["token"], "tok");
    // Who is in the room is not put out by it.
    peer.join(&server, &room, &bob).await;
    let (status, body) = ask((&alice.id, &bob), &good).await;
    assert_eq!(status, 403, "{body}");
    let event = member(&alice, &room, &bob).await;
    assert_eq!(event["content"]["membership"], "join");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_identity_server_tells_is_asked_of_the_inviters_server() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let alice = server.user("alice").await;
    let bob = peer.user("bob");
    let identity = Key::new("id.example", "0");
    let room = format!("!room:{}", peer.name);
    peer.route_to("exchange_third_party_invite", Answer::ok(json!({})));
    let good = signed(&identity, &alice.id, "tok");
    let of_other = signed(&identity, &bob, "tok");
    for method in ["PUT", "POST"] {
        let invites = [
            pending(&room, &bob, &bob, &of_other),
            pending(&room, &bob, &alice.id, &of_other),
            pending(&room, &bob, &alice.id, &good),
            pending(&room, "@nobody:localhost:1", &alice.id, &good),
        ];
        let (status, body) = bind(&server, method, &bound(&alice.id, &invites)).await;
        assert_eq!((status, body), (200, json!({})), "{method}");
    }
    let asked = peer.asked("exchange_third_party_invite");
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].args, [room]);
    let body = &asked[0].body;
    assert_eq!(body["type"], "m.room.member", "{body}");
    assert_eq!(
        (&body["sender"], &body["state_key"]),
        (&json!(bob), &json!(alice.id))
    );
    assert_eq!(body["content"]["third_party_invite"]["signed"], good);
    for user in [&*bob, &format!("@nobody:{}", server.name)] {
        let (status, body) = bind(&server, "PUT", &bound(user, &[])).await;
        let got = (status, &body["errcode"]);
        assert_eq!(got, (400, &json!("M_INVALID_PARAM")), "{body}");
    }
    let (status, _) = bind(&server, "PUT", &json!({ "mxid": alice.id, "invites": [7] })).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_room_of_both_the_invitation_is_made_where_the_identifier_is_bound() {
    let (_folder, one, other) = two_servers().await;
    let alice = one.user("alice").await;
    let (bob, mut carol) = (other.user("bob").await, other.user("carol").await);
    let identity = Key::new("id.example", "0");
    let room = alice.create_room(json!({ "invite": [bob.id] })).await;
    let mut bob = bob;
    bob.is_invited(&room).await;
    bob.join(&room).await;
    offer(&alice, &room, "tok", &identity, "").await;
    bob.wait_for("the invitation", |event| {
        event["type"] == "m.room.third_party_invite"
    })
    .await;
    let wrong = signed(&Key::new("id.example", "0"), &carol.id, "tok");
    let good = signed(&identity, &carol.id, "tok");
    let bad = [
        pending(&room, &alice.id, &carol.id, &wrong),
        // Not who invited the identifier.
        pending(&room, &bob.id, &carol.id, &good),
    ];
    let (status, _) = bind(&other, "PUT", &bound(&carol.id, &bad)).await;
    assert_eq!(status, 200);
    let nobody = member(&bob, &room, &carol.id).await;
    assert_eq!(nobody["errcode"], "M_NOT_FOUND", "{nobody}");
    let invites = [pending(&room, &alice.id, &carol.id, &good)];
    let (status, _) = bind(&other, "PUT", &bound(&carol.id, &invites)).await;
    assert_eq!(status, 200);
    carol.is_invited(&room).await;
    // The inviter's server takes it, though another one made it in its user's name.
    let mut alice = alice;
    let carol_id = carol.id.clone();
    let event = alice
        .wait_for("carol's invitation", |event| {
            event["state_key"] == carol_id.as_str()
        })
        .await;
    assert_eq!(event["sender"], alice.id.as_str());
    carol.join(&room).await;
    carol.say(&room, "here I am").await;
    alice.hears("here I am").await;
}
