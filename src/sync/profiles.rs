//! Profiles of others in syncs (MSC4262, MSC4429): those of our users. What peers say of theirs comes
//! with their membership.

use std::collections::{BTreeMap, HashSet};

use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use super::Error;
use crate::{
    rooms::Rooms,
    storage::{
        Pos, Topic, UserNid,
        profile_changes::{self, Field},
    },
    users::tokens::Session,
};

/// Fields in one answer.
const FIELDS_MAX: i64 = 20_000;

/// Fields of users; no value: the field is gone.
pub(super) type Profiles = BTreeMap<OwnedUserId, BTreeMap<String, Option<Value>>>;

/// What changed in `(since, upto]` for a user, and all there is of who is in rooms that are new to the
/// client.
pub(super) async fn read(
    rooms: &Rooms,
    session: &Session,
    fields: Option<&[String]>,
    (since, upto): (Pos, Pos),
    fresh: &[i64],
) -> Result<Profiles, Error> {
    let mut found: Vec<Field> = Vec::new();
    if fields.is_some_and(<[String]>::is_empty) {
        return Ok(Profiles::new());
    }
    let stream = &rooms.ctx().db.stream;
    let is_changed = since > 0 && stream.recent().has_since(Topic::Profiles, 0, since);
    if fresh.is_empty() && !is_changed {
        return Ok(Profiles::new());
    }
    let mut conn = rooms.ctx().db.conn().await?;
    if !fresh.is_empty() {
        found = profile_changes::list_in_rooms(&mut conn, fresh, fields, FIELDS_MAX).await?;
    }
    if is_changed {
        let user = session.user_nid;
        let changed =
            profile_changes::list(&mut conn, user, (since, upto), fields, FIELDS_MAX).await?;
        found.extend(changed);
    }
    drop(conn);
    let nids: HashSet<i64> = found.iter().map(|(user, ..)| user.0).collect();
    let nids: Vec<UserNid> = nids.into_iter().map(UserNid).collect();
    let ids = rooms.ctx().db.ids.user_ids_of(&nids).await?;
    let names: BTreeMap<i64, OwnedUserId> = nids.iter().map(|nid| nid.0).zip(ids).collect();
    let mut profiles = Profiles::new();
    for (user, field, value) in found {
        if let Some(id) = names.get(&user.0) {
            let fields = profiles.entry(id.clone()).or_default();
            fields.insert(field, value);
        }
    }
    Ok(profiles)
}

/// As sliding sync tells it.
pub(super) fn sliding(profiles: Profiles) -> Value {
    let users = profiles.into_iter().map(|(user, fields)| {
        let (mut updated, mut removed) = (Map::new(), Vec::new());
        for (field, value) in fields {
            match value {
                Some(value) => {
                    updated.insert(field, value);
                }
                None => removed.push(field),
            }
        }
        let mut part = Map::new();
        if !updated.is_empty() {
            part.insert("updated".to_owned(), Value::Object(updated));
        }
        if !removed.is_empty() {
            part.insert("removed".to_owned(), json!(removed));
        }
        (user.to_string(), Value::Object(part))
    });
    json!({ "users": users.collect::<Map<_, _>>() })
}

/// As classic sync tells it: what is gone is null.
pub(super) fn classic(profiles: Profiles) -> Map<String, Value> {
    let users = profiles
        .into_iter()
        .map(|(user, fields)| (user.to_string(), json!({ "profile_updates": fields })));
    users.collect()
}
