//! Rooms with a policy server.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::rig::{
    enc,
    scripted::{
        Answer,
        event::{Event, Key, canonical},
        server_and_peer,
    },
};

/// Signs what does not say "spam".
fn judge(key: &Key, pdu: &Value) -> Answer {
    if pdu["content"]["body"]
        .as_str()
        .is_some_and(|text| text.contains("spam"))
    {
        let refusal = json!({ "errcode": "M_FORBIDDEN", "error": "no spam here" });
        return Answer::Json(400, refusal);
    }
    let mut object = canonical(pdu.clone());
    key.sign_event(&mut object, "11");
    let signed = serde_json::to_value(&object).unwrap();
    let signature = &signed["signatures"][&key.server][key.id()];
    Answer::ok(json!({ &key.server: { key.id(): signature } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_server_signs_what_is_said_in_its_room() {
    let (_folder, _, server, peer) = server_and_peer().await;
    let mut alice = server.user("alice").await;
    let room_id = alice
        .create_room(json!({ "preset": "public_chat", "room_version": "11" }))
        .await;
    let bob = peer.user("bob");
    let room = peer.join(&server, &room_id, &bob).await;
    let key = Arc::new(Key::new(&peer.name, "policy_server"));
    let policy = json!({ "via": peer.name, "public_keys": { "ed25519": key.public() } });
    peer.route("sign", move |asked, _| judge(&key, &asked.body));
    let path = format!("/rooms/{}/state/m.room.policy", enc(&room_id));
    let (status, body) = alice.put(&path, policy).await;
    assert_eq!(
        status, 200,
        "the event that names the server is judged by nobody: {body}"
    );

    alice.say(&room_id, "good morning").await;
    peer.hears("good morning").await;
    let heard = peer.asked("send");
    let pdus = heard
        .iter()
        .flat_map(|asked| asked.body["pdus"].as_array().unwrap());
    let said = pdus
        .clone()
        .find(|pdu| pdu["content"]["body"] == "good morning")
        .unwrap();
    assert!(
        said["signatures"][&peer.name]["ed25519:policy_server"].is_string(),
        "{said}"
    );
    assert!(said["signatures"][&server.name].is_object(), "{said}");

    let path = format!("/rooms/{}/send/m.room.message/spam", enc(&room_id));
    let spam = json!({ "msgtype": "m.text", "body": "spam" });
    let (status, body) = alice.put(&path, spam).await;
    assert_eq!(
        (status, &body["errcode"], &body["error"]),
        (400, &json!("M_FORBIDDEN"), &json!("no spam here")),
        "{body}"
    );

    // Of others: what is not signed is asked for once, and kept from clients where it is refused.
    for pdu in pdus {
        room.insert(&Event::of(canonical(pdu.clone()), "11"));
    }
    let refused = room.message(&bob, "spam of bob");
    let fine = room.message(&bob, "fine");
    peer.send(&server, &[&refused, &fine]).await;
    alice.hears("fine").await;
    let heard = alice.history(&room_id).await;
    assert!(!heard.contains(&"spam of bob".to_owned()), "{heard:?}");
}
