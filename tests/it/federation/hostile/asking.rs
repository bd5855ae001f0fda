//! Questions that no honest server asks.

use serde_json::json;

use super::Stage;
use crate::rig::enc;

#[tokio::test(flavor = "multi_thread")]
async fn questions_without_measure_get_answers_with_one() {
    let mut stage = Stage::new("11").await;
    for i in 0..120 {
        stage.alice.say(&stage.room.id, &format!("said {i}")).await;
    }
    stage.peer.hears("said 119").await;
    let room = enc(&stage.room.id);
    let ids: Vec<String> = (0..20_000).map(|i| format!("${i:0>43}")).collect();
    let path = format!("/_matrix/federation/v1/get_missing_events/{room}");
    let end = stage.room.ends();
    for (earliest, latest, limit) in [
        (&ids[..0], &end[..], 1_000_000_000_u64),
        (&ids[..0], &ids[..], 50),
        (&ids[..], &end[..], 9_007_199_254_740_991),
    ] {
        let mut latest = latest.to_vec();
        latest.extend(end.clone());
        let body = json!({ "earliest_events": earliest, "latest_events": latest, "limit": limit });
        let call = stage.peer.call(&stage.server, "POST", &path, Some(body));
        let (status, answer) = call.await;
        if status == 200 {
            let events = answer["events"].as_array().unwrap().len();
            assert!((1..=50).contains(&events), "{events} events");
        } else {
            assert!((400..500).contains(&status), "{status} {answer}");
        }
    }
    let many: Vec<String> = ids[..300].iter().map(|id| enc(id)).collect();
    let many = many.join("&v=");
    for query in [
        format!("v={}&limit=1000000000", enc(&end[0])),
        format!("v={many}&v={}&limit=100", enc(&end[0])),
    ] {
        let path = format!("/_matrix/federation/v1/backfill/{room}?{query}");
        let (status, answer) = stage.peer.call(&stage.server, "GET", &path, None).await;
        if status == 200 {
            let events = answer["pdus"].as_array().unwrap().len();
            assert!((1..=100).contains(&events), "{events} events");
        } else {
            assert!((400..500).contains(&status), "{status} {answer}");
        }
    }
    for query in ["limit=-1", "limit=x", "v=&limit=1", "v=$x&limit=0", ""] {
        let path = format!("/_matrix/federation/v1/backfill/{room}?{query}");
        let (status, answer) = stage.peer.call(&stage.server, "GET", &path, None).await;
        assert!(status < 500, "{query}: {answer}");
    }
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_that_a_peer_is_not_in_are_closed_to_it() {
    let mut stage = Stage::new("11").await;
    let closed = stage
        .alice
        .create_room(json!({ "preset": "private_chat" }))
        .await;
    let secret = stage.alice.say(&closed, "secret").await;
    let eve = stage.peer.user("eve");
    let room = enc(&closed);
    let event = enc(&secret);
    let user = enc(&eve);
    let versions = "ver=10&ver=11&ver=12";
    for (method, path, body) in [
        ("GET", format!("v1/state/{room}?event_id={event}"), None),
        ("GET", format!("v1/state_ids/{room}?event_id={event}"), None),
        ("GET", format!("v1/event_auth/{room}/{event}"), None),
        ("GET", format!("v1/event/{event}"), None),
        (
            "GET",
            format!("v1/backfill/{room}?v={event}&limit=10"),
            None,
        ),
        (
            "POST",
            format!("v1/get_missing_events/{room}"),
            Some(json!({ "earliest_events": [], "latest_events": [secret], "limit": 10 })),
        ),
        (
            "GET",
            format!("v1/timestamp_to_event/{room}?ts=0&dir=f"),
            None,
        ),
        (
            "GET",
            format!("v1/make_join/{room}/{user}?{versions}"),
            None,
        ),
        (
            "GET",
            format!("v1/make_knock/{room}/{user}?{versions}"),
            None,
        ),
        ("GET", format!("v1/make_leave/{room}/{user}"), None),
    ] {
        let path = format!("/_matrix/federation/{path}");
        let (status, answer) = stage.peer.call(&stage.server, method, &path, body).await;
        assert!([403, 404].contains(&status), "{path}: {status} {answer}");
        assert!(!answer.to_string().contains("secret\""), "{answer}");
    }
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_for_versions_and_users_of_the_asking_server() {
    let mut stage = Stage::new("11").await;
    let open = json!({ "preset": "public_chat", "room_version": "12" });
    let open = stage.alice.create_room(open).await;
    let room = enc(&open);
    let eve = stage.peer.user("eve");
    let make = |user: &str, query: &str| {
        let path = format!(
            "/_matrix/federation/v1/make_join/{room}/{}{query}",
            enc(user)
        );
        let stage = &stage;
        async move { stage.peer.call(&stage.server, "GET", &path, None).await }
    };
    for query in ["?ver=99", "?ver=1&ver=11", ""] {
        let (status, answer) = make(&eve, query).await;
        assert_eq!(
            (status, &answer["errcode"]),
            (400, &json!("M_INCOMPATIBLE_ROOM_VERSION")),
            "{query}: {answer}"
        );
    }
    for user in [stage.alice.id.as_str(), "@carol:localhost:1"] {
        let (status, answer) = make(user, "?ver=12").await;
        assert_eq!(status, 403, "{user}: {answer}");
    }
    assert_eq!(make(&eve, "?ver=99&ver=12").await.0, 200);
    stage.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_is_what_the_template_said_or_nothing() {
    let mut stage = Stage::new("11").await;
    let open = json!({ "preset": "public_chat", "room_version": "11" });
    let open = stage.alice.create_room(open).await;
    let secret = stage.alice.create_room(json!({})).await;
    let eve = stage.peer.user("eve");
    let draft = stage.peer.make(&stage.server, "join", &open, &eve).await;
    let text = |text: &str| serde_json::Value::String(text.to_owned());
    let unknown = vec![format!("${}", "A".repeat(43))];
    for (what, draft) in [
        (
            "another's join",
            draft.clone().with("state_key", text(&stage.bob)),
        ),
        (
            "our user's join",
            draft.clone().with("sender", text(&stage.alice.id)),
        ),
        ("another room", draft.clone().with("room_id", text(&secret))),
        (
            "a ban",
            draft
                .clone()
                .with("content", json!({ "membership": "ban" })),
        ),
        ("a topic", draft.clone().with("type", text("m.room.topic"))),
        (
            "unknown predecessors",
            draft.clone().on("prev_events", &unknown),
        ),
        ("no predecessors", draft.clone().on("prev_events", &[])),
        ("no content", draft.clone().with("content", json!({}))),
    ] {
        let event = draft.sign(&stage.peer.key);
        stage.join_is_refused(what, &open, &event).await;
    }
    let path = format!("/rooms/{}/joined_members", enc(&open));
    let (_, members) = stage.alice.get(&path).await;
    assert_eq!(members["joined"].as_object().unwrap().len(), 1, "{members}");
    stage.goes_on().await;
}
