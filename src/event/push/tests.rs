//! Rules against events.

use std::collections::BTreeMap;

use ruma::{
    push::{ConditionalPushRule, Ruleset},
    user_id,
};
use serde_json::{Value, json};

use super::{
    Effect, Rules,
    class::{self, Class},
    defaults::{self, Added},
    path,
    subject::{Place, Reader, Subject},
};
use crate::event::{pdu::Pdu, version::RoomVersion};

const THREADS: Added = Added {
    threads: true,
    names: false,
};

fn event(fields: &Value) -> Pdu {
    let mut whole = json!({
        "room_id": "!room:a.example", "sender": "@bob:a.example", "origin_server_ts": 1,
        "type": "m.room.message", "depth": 1,
    });
    for (key, value) in fields.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let id = ruma::event_id!("$event:a.example").to_owned();
    let version = RoomVersion::of(&ruma::RoomVersionId::V1).unwrap();
    Pdu::from_stored(id, whole.to_string(), &version, false).unwrap()
}

fn place() -> Place {
    Place {
        members: 3,
        sender_power: 50,
        notifications: BTreeMap::new(),
        in_thread: false,
    }
}

fn effect(rules: &Rules, fields: &Value) -> (bool, bool) {
    let pdu = event(fields);
    let reader = Reader {
        user_id: user_id!("@alice:a.example"),
        display_name: Some("Alice Müller"),
        subscribed: false,
    };
    let Effect { notify, highlight } = rules.effect(&Subject::new(&pdu), &place(), reader);
    (notify, highlight)
}

fn one(conditions: &Value) -> Rules {
    let mut set = Ruleset::new();
    let rule = json!({
        "rule_id": "r", "default": false, "enabled": true, "actions": ["notify"],
        "conditions": conditions,
    });
    let rule: ConditionalPushRule = serde_json::from_value(rule).unwrap();
    set.override_.insert(rule);
    Rules::new(&set)
}

fn holds(condition: &Value, fields: &Value) -> bool {
    effect(&one(&json!([condition])), fields).0
}

#[test]
fn default_rules_are_those_of_the_specification() {
    let rules = Rules::new(&defaults::of(
        user_id!("@alice:a.example"),
        Added::default(),
    ));
    let text = |more: Value| {
        let mut content = json!({ "msgtype": "m.text", "body": "hello" });
        for (key, value) in more.as_object().unwrap() {
            content[key] = value.clone();
        }
        json!({ "content": content })
    };
    let meant = json!({ "m.mentions": { "user_ids": ["@alice:a.example"] } });
    let all = json!({ "m.mentions": { "room": true } });
    let edit = json!({ "m.relates_to": { "rel_type": "m.replace", "event_id": "$x:a.example" } });
    assert_eq!(effect(&rules, &text(json!({}))), (true, false));
    assert_eq!(
        effect(&rules, &text(json!({ "msgtype": "m.notice" }))),
        (false, false)
    );
    assert_eq!(effect(&rules, &text(meant)), (true, true));
    assert_eq!(effect(&rules, &text(all)), (true, true));
    assert_eq!(effect(&rules, &text(edit)), (false, false));
    let own = json!({ "sender": "@alice:a.example", "content": { "body": "x" } });
    assert_eq!(effect(&rules, &own), (false, false));
    let of_type = |kind: &str| json!({ "type": kind, "state_key": "", "content": {} });
    assert_eq!(effect(&rules, &of_type("m.room.tombstone")), (true, true));
    assert_eq!(
        effect(&rules, &of_type("m.room.server_acl")),
        (false, false)
    );
    assert_eq!(effect(&rules, &of_type("m.room.name")), (false, false));
    assert_eq!(
        effect(&rules, &of_type("org.matrix.msc3381.poll.start")),
        (true, false)
    );
    assert_eq!(
        effect(&rules, &of_type("org.matrix.msc3381.poll.response")),
        (false, false)
    );
    // A name that nobody has is nobody's.
    let nobody = text(json!({ "m.mentions": { "user_ids": ["@nobody:invalid"] } }));
    assert_eq!(
        effect(&defaults::for_everybody(Added::default()), &nobody),
        (true, false)
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn every_kind_of_condition_says_what_it_means() {
    let fields = json!({ "content": {
        "body": "Grüße, alice müller!", "n": 2, "flag": true, "none": null,
        "m.relates_to": { "rel_type": "m.thread" }, "list": ["a", 1, null],
    } });
    let cases = [
        (
            json!({ "kind": "event_match", "key": "type", "pattern": "m.ROOM.*" }),
            true,
        ),
        (
            json!({ "kind": "event_match", "key": "content.n", "pattern": "2" }),
            false,
        ),
        (
            json!({ "kind": "event_match", "key": "content.body", "pattern": "grü?e" }),
            true,
        ),
        (
            json!({ "kind": "event_match", "key": r"content.m\.relates_to.rel_type", "pattern": "m.thread" }),
            true,
        ),
        (
            json!({ "kind": "event_match", "key": "content.m.relates_to.rel_type", "pattern": "*" }),
            false,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.n", "value": 2 }),
            true,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.n", "value": "2" }),
            false,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.flag", "value": true }),
            true,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.none", "value": null }),
            true,
        ),
        (
            json!({ "kind": "event_property_is", "key": "content.gone", "value": null }),
            false,
        ),
        (
            json!({ "kind": "event_property_is", "key": "type", "value": "m.room.message" }),
            true,
        ),
        (
            json!({ "kind": "event_property_contains", "key": "content.list", "value": 1 }),
            true,
        ),
        (
            json!({ "kind": "event_property_contains", "key": "content.list", "value": "1" }),
            false,
        ),
        (
            json!({ "kind": "event_property_contains", "key": "content.n", "value": 2 }),
            false,
        ),
        (json!({ "kind": "contains_display_name" }), true),
        (json!({ "kind": "room_member_count", "is": "3" }), true),
        (json!({ "kind": "room_member_count", "is": ">3" }), false),
        (json!({ "kind": "room_member_count", "is": "<=3" }), true),
        (
            json!({ "kind": "sender_notification_permission", "key": "room" }),
            true,
        ),
        (
            json!({ "kind": "sender_notification_permission", "key": "other" }),
            false,
        ),
        (json!({ "kind": "org.example.unknown", "x": 1 }), false),
    ];
    for (condition, expected) in cases {
        assert_eq!(holds(&condition, &fields), expected, "{condition}");
    }
    // All conditions have to hold; a rule without any applies always.
    assert!(effect(&one(&json!([])), &fields).0);
}

#[test]
fn dots_and_backslashes_in_names_are_escaped() {
    assert_eq!(path(r"a.b\.c.d\\.e\x"), ["a", "b.c", r"d\", r"e\x"]);
    assert_eq!(path(""), [""]);
    assert_eq!(path(r"a\"), [r"a\"]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn common_rules_need_no_look_at_each_event() {
    let user = user_id!("@alice:a.example");
    let classes = |change: &Value, ignores: bool| {
        let mut set = json!(defaults::of(user, THREADS));
        for (kind, rules) in change.as_object().unwrap() {
            let mut all = rules.as_array().unwrap().clone();
            let given = set[kind].as_array().cloned().unwrap_or_default();
            let ids: Vec<&Value> = all.iter().map(|rule| &rule["rule_id"]).collect();
            let rest: Vec<Value> = given
                .into_iter()
                .filter(|r| !ids.contains(&&r["rule_id"]))
                .collect();
            all.extend(rest);
            set[kind] = json!(all);
        }
        let set: Ruleset = serde_json::from_value(set).unwrap();
        let classes = class::of(&defaults::of(user, THREADS), &set, ignores);
        let there = classes.rooms.get("!r:a.example").copied();
        (classes.elsewhere, there.unwrap_or(classes.elsewhere))
    };
    let rule = |more: Value| {
        let mut rule = json!({ "rule_id": "x", "default": false, "enabled": true, "actions": [] });
        for (key, value) in more.as_object().unwrap() {
            rule[key] = value.clone();
        }
        rule
    };
    let mute = rule(json!({
        "rule_id": "!r:a.example",
        "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": "!r:a.example" }],
    }));
    let keyword = rule(json!({ "pattern": "cake", "actions": ["notify"] }));
    let quiet = rule(json!({ "rule_id": "!r:a.example", "actions": ["dont_notify"] }));
    let loud = rule(json!({ "rule_id": "!r:a.example", "actions": ["notify"] }));
    let master = rule(json!({ "rule_id": ".m.rule.master", "default": true, "conditions": [] }));
    let expect = [
        (json!({}), false, (Class::Default, Class::Default)),
        (json!({}), true, (Class::Custom, Class::Custom)),
        (
            json!({ "override": [&mute] }),
            false,
            (Class::Default, Class::Mute),
        ),
        (
            json!({ "override": [&mute], "content": [&keyword] }),
            false,
            (Class::Custom, Class::Mute),
        ),
        (
            json!({ "content": [&keyword] }),
            false,
            (Class::Custom, Class::Custom),
        ),
        (
            json!({ "room": [&quiet] }),
            false,
            (Class::Default, Class::Mentions),
        ),
        (
            json!({ "room": [&loud] }),
            false,
            (Class::Default, Class::Custom),
        ),
        (
            json!({ "room": [&quiet], "content": [&keyword] }),
            false,
            (Class::Custom, Class::Custom),
        ),
        (
            json!({ "override": [&master] }),
            false,
            (Class::Mute, Class::Mute),
        ),
    ];
    for (change, ignores, expected) in expect {
        assert_eq!(classes(&change, ignores), expected, "{change}");
    }
}
