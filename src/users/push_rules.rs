//! Push rules of a user: what is stored are the user's own rules and what was changed of the
//! default ones (specification, "Push rules").

use std::collections::BTreeMap;

use ruma::{
    OwnedUserId, UserId,
    push::{Action, NewPushRule, Ruleset},
};
use serde_json::{Value, json};

use super::{Error, tokens::Session};
use crate::{
    context::Context,
    event::push::{
        class,
        defaults::{self, Added},
    },
    storage::{self, LogEntry, LogKind, UserNid},
};

/// Account data that names whom a user ignores.
pub const IGNORED: &str = "m.ignored_user_list";

/// The kinds of rules, in the order in which they are asked.
const KINDS: [&str; 5] = ["override", "content", "room", "sender", "underride"];
/// Rules between those for content and those for rooms, where subscriptions to threads are on
/// (MSC4306); users have none of their own.
const AFTER_CONTENT: &str = "postcontent";
/// Bytes of the rules of a user: thousands of muted rooms.
const BYTES_MAX: usize = 512 << 10;
/// Bytes of one rule.
const RULE_BYTES_MAX: usize = 8 << 10;
/// Bytes of the id of a rule.
const ID_BYTES_MAX: usize = 512;
/// Conditions of one rule.
const CONDITIONS_MAX: usize = 32;
/// How often a change is made anew when another node changes the rules at the same time.
const ATTEMPTS_MAX: usize = 8;

/// A rule of a user, by kind and id.
pub type Key<'a> = (&'a str, &'a str);

/// The content of `m.push_rules`: all rules of a user, from what is stored (`None`: nothing is).
pub fn content(ctx: &Context, user: &UserId, stored: Option<&str>) -> Value {
    json!({ "global": as_json(&ruleset(ctx, user, stored)) })
}

/// The default rules of a user.
fn given(ctx: &Context, user: &UserId) -> Ruleset {
    defaults::of(user, added(ctx))
}

/// What the operator adds to the default rules.
pub fn added(ctx: &Context) -> Added {
    Added {
        threads: ctx.config.unstable.thread_subscriptions,
        names: ctx.config.push.names_in_texts,
    }
}

/// All rules of a user, from what is stored.
pub fn ruleset(ctx: &Context, user: &UserId, stored: Option<&str>) -> Ruleset {
    let stored = stored.and_then(|body| serde_json::from_str(body).ok());
    let mut set: Ruleset = stored.unwrap_or_default();
    let given = given(ctx, user);
    // The method below knows nothing of rules after those for content.
    let changed = std::mem::take(&mut set.postcontent);
    let after_content = given.postcontent.iter().cloned().map(|mut rule| {
        if let Some(changed) = changed.get(&*rule.rule_id) {
            rule.enabled = changed.enabled;
            rule.actions.clone_from(&changed.actions);
        }
        rule
    });
    set.postcontent = after_content.collect();
    set.update_with_server_default(given);
    set
}

/// Whom an `m.ignored_user_list` names.
pub fn ignored(content: &str) -> Vec<OwnedUserId> {
    #[derive(serde::Deserialize)]
    struct List {
        #[serde(default)]
        ignored_users: serde_json::Map<String, Value>,
    }
    let list = serde_json::from_str::<List>(content).ok();
    let ids = list.into_iter().flat_map(|list| list.ignored_users);
    ids.filter_map(|(id, _)| OwnedUserId::try_from(id).ok())
        .collect()
}

/// The content of `m.push_rules` of whoever asks.
pub async fn list(ctx: &Context, session: &Session) -> Result<Value, Error> {
    let mut conn = ctx.db.conn().await?;
    let stored = storage::push_rules::find(&mut conn, session.user_nid).await?;
    let body = stored.as_ref().map(|stored| &*stored.body);
    Ok(content(ctx, &session.user_id, body))
}

/// One rule.
pub async fn get(ctx: &Context, session: &Session, (kind, id): Key<'_>) -> Result<Value, Error> {
    let mut content = list(ctx, session).await?;
    let rules = content["global"][kind].as_array_mut();
    let rule = rules.and_then(|rules| {
        let at = position(rules, id)?;
        Some(rules.swap_remove(at))
    });
    rule.ok_or(MISSING)
}

const MISSING: Error = Error::NotFound("push rule");

/// Sets a rule of the user's own; `before` and `after` name others of the kind.
pub async fn put(
    ctx: &Context,
    session: &Session,
    rule: &NewPushRule,
    (before, after): (Option<&str>, Option<&str>),
) -> Result<(), Error> {
    let invalid = |why| Err(Error::Invalid(why));
    let kind = rule.kind().to_string();
    let id = rule.rule_id();
    if id.starts_with('.') {
        return invalid("rules with a dot in front are those of the server");
    }
    if id.contains(['/', '\\']) || id.is_empty() || id.len() > ID_BYTES_MAX {
        return invalid("this cannot be the id of a rule");
    }
    if [before, after]
        .iter()
        .flatten()
        .any(|other| other.starts_with('.'))
    {
        return invalid("rules have no place relative to those of the server");
    }
    let mut value = new_rule(rule);
    if value.to_string().len() > RULE_BYTES_MAX
        || value["conditions"].as_array().map_or(0, Vec::len) > CONDITIONS_MAX
    {
        return invalid("the rule is too large");
    }
    change(ctx, (&session.user_id, session.user_nid), |set| {
        let rules = rules_of(set, &kind)?;
        let was = position(rules, id);
        if let Some(was) = was {
            value["enabled"] = rules[was]["enabled"].clone();
        }
        let old = was.map(|was| rules.remove(was));
        let relative = |other: &str| position(rules, other).ok_or(MISSING);
        let place = match (before, after) {
            (None, None) if old.is_some() => was.unwrap_or_default(),
            // The master rule stays in front of all.
            (None, None) => usize::from(kind == "override"),
            (Some(before), None) => relative(before)?,
            (None, Some(after)) => relative(after)? + 1,
            (Some(before), Some(after)) => {
                let place = relative(before)?;
                if relative(after)? >= place {
                    return Err(Error::Invalid("`after` stands behind `before`"));
                }
                place
            }
        };
        rules.insert(place.min(rules.len()), value.clone());
        Ok(())
    })
    .await
}

/// Deletes a rule of the user's own.
pub async fn delete(ctx: &Context, session: &Session, (kind, id): Key<'_>) -> Result<(), Error> {
    change(ctx, (&session.user_id, session.user_nid), |set| {
        let rules = rules_of(set, kind)?;
        let at = position(rules, id).ok_or(MISSING)?;
        if rules[at]["default"] == true {
            return Err(Error::Invalid("rules of the server cannot be deleted"));
        }
        rules.remove(at);
        Ok(())
    })
    .await
}

/// Enables or disables a rule.
pub async fn set_enabled(
    ctx: &Context,
    session: &Session,
    key: Key<'_>,
    enabled: bool,
) -> Result<(), Error> {
    set_field(ctx, session, key, ("enabled", json!(enabled))).await
}

/// Sets the actions of a rule.
pub async fn set_actions(
    ctx: &Context,
    session: &Session,
    key: Key<'_>,
    actions: &[Action],
) -> Result<(), Error> {
    let actions = json!(actions);
    if actions.to_string().len() > RULE_BYTES_MAX {
        return Err(Error::Invalid("the rule is too large"));
    }
    set_field(ctx, session, key, ("actions", actions)).await
}

async fn set_field(
    ctx: &Context,
    session: &Session,
    (kind, id): Key<'_>,
    (field, value): (&str, Value),
) -> Result<(), Error> {
    change(ctx, (&session.user_id, session.user_nid), |set| {
        let rules = rules_of(set, kind)?;
        let at = position(rules, id).ok_or(MISSING)?;
        rules[at][field] = value.clone();
        Ok(())
    })
    .await
}

/// Rules for a room go for another as well, where there are none yet.
pub async fn copy_room(
    ctx: &Context,
    user: (&UserId, UserNid),
    old: &str,
    new: &str,
) -> Result<(), Error> {
    let mut conn = ctx.db.conn().await?;
    let stored = storage::push_rules::find(&mut conn, user.1).await?;
    drop(conn);
    if !stored.is_some_and(|stored| stored.body.contains(old)) {
        return Ok(());
    }
    change(ctx, user, |set| {
        for kind in ["override", "room"] {
            let rules = rules_of(set, kind)?;
            let Some(at) = position(rules, old).filter(|_| position(rules, new).is_none()) else {
                continue;
            };
            // Clients mute a room by an override rule with its id, and a condition on it.
            let text = rules[at].to_string().replace(old, new);
            if let Ok(copy) = serde_json::from_str(&text) {
                rules.insert(at + 1, copy);
            }
        }
        Ok(())
    })
    .await
}

/// Whom the user ignores has changed: that is counted like a change of the rules.
pub async fn follow_ignored(ctx: &Context, user: (&UserId, UserNid)) -> Result<(), Error> {
    change(ctx, user, |_| Ok(())).await
}

/// Changes the rules of a user: compare and set, so that no node undoes what another did.
async fn change(
    ctx: &Context,
    (user_id, user): (&UserId, UserNid),
    mut make: impl FnMut(&mut Value) -> Result<(), Error>,
) -> Result<(), Error> {
    for _ in 0..ATTEMPTS_MAX {
        let mut tx = ctx.db.begin().await?;
        let stored = storage::push_rules::find(&mut tx, user).await?;
        let ignored_by = storage::push_rules::list_ignored(&mut tx, &[user.0]).await?;
        let ignores = ignored_by.iter().any(|(_, list)| !ignored(list).is_empty());
        let rev = stored.as_ref().map_or(0, |stored| stored.rev);
        let before = ruleset(ctx, user_id, stored.as_ref().map(|stored| &*stored.body));
        let mut set = as_json(&before);
        make(&mut set)?;
        let set: Ruleset = serde_json::from_value(set)
            .map_err(|_| Error::Invalid("this is no rule of its kind"))?;
        let given = given(ctx, user_id);
        let body = changes(&given, &set).to_string();
        if body.len() > BYTES_MAX {
            return Err(Error::Invalid("too many rules"));
        }
        let classes = class::of(&given, &set, ignores);
        let rooms = classes.rooms.into_iter();
        let rooms: BTreeMap<String, i16> = rooms.map(|(id, class)| (id, class as i16)).collect();
        let class = (classes.elsewhere as i16, &rooms);
        if storage::push_rules::compare_and_set(&mut tx, (user, rev), &body, class).await? {
            let entry = LogEntry {
                kind: LogKind::PushRules,
                room: 0,
                user: user.0,
                reference: 0,
            };
            let pos = tx.log(entry).await?;
            storage::push_rules::update_pos(&mut tx, user, pos).await?;
            tx.commit().await?;
            return Ok(());
        }
    }
    Err(Error::Invalid("the rules are being changed elsewhere"))
}

/// What has to be stored of rules: the user's own, and default ones that are not as given.
fn changes(given: &Ruleset, set: &Ruleset) -> Value {
    let given = as_json(given);
    let mut set = as_json(set);
    for kind in KINDS.into_iter().chain([AFTER_CONTENT]) {
        let given = given[kind].as_array().cloned().unwrap_or_default();
        if let Some(rules) = set.get_mut(kind).and_then(Value::as_array_mut) {
            rules.retain(|rule| !given.contains(rule));
        }
    }
    set
}

/// Rules as JSON, with a list for each kind.
fn as_json(set: &Ruleset) -> Value {
    let mut value = json!(set);
    for kind in KINDS {
        if value[kind].is_null() {
            value[kind] = json!([]);
        }
    }
    value
}

fn new_rule(rule: &NewPushRule) -> Value {
    let mut value = match rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) => json!(rule),
        NewPushRule::Content(rule) => json!(rule),
        NewPushRule::Room(rule) => json!(rule),
        NewPushRule::Sender(rule) => json!(rule),
        _ => json!({}),
    };
    value["default"] = json!(false);
    value["enabled"] = json!(true);
    value
}

fn rules_of<'a>(set: &'a mut Value, kind: &str) -> Result<&'a mut Vec<Value>, Error> {
    let rules = set.get_mut(kind).and_then(Value::as_array_mut);
    rules.ok_or(MISSING)
}

fn position(rules: &[Value], id: &str) -> Option<usize> {
    rules.iter().position(|rule| rule["rule_id"] == id)
}
