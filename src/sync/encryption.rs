//! What end-to-end encryption needs of a sync: messages to the device, changed devices, key counts.

use serde_json::{Value, value::RawValue};

use super::{Error, joined::Scope, token::Token};
use crate::{
    devices::keys::counted,
    storage::{self, Pos, UserNid, device_keys},
};

/// Messages in one answer.
const MESSAGES_MAX: i64 = 100;
/// Users in one answer; who has more missed is told of the rest by the next.
const USERS_MAX: i64 = 10_000;

/// News for one device.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Events, oldest first.
    pub(super) to_device: Vec<Box<RawValue>>,
    /// Where the next sync goes on with them.
    pub(super) told: Pos,
    /// Users whose devices have to be looked at.
    pub(super) changed: Vec<ruma::OwnedUserId>,
    /// The same, interned: among them those who are new to the user.
    pub(super) met: Vec<i64>,
    /// Users who share no room any more.
    pub(super) left: Vec<ruma::OwnedUserId>,
    /// One-time keys that wait, by algorithm.
    pub(super) key_counts: Value,
    /// Algorithms with a fallback key that was not used.
    pub(super) unused_fallback: Vec<String>,
}

impl News {
    /// Nothing that a client should be woken for.
    pub(super) fn is_empty(&self) -> bool {
        self.to_device.is_empty() && self.changed.is_empty() && self.left.is_empty()
    }
}

/// Looks; deletes the messages that `since` acknowledges.
pub(super) async fn look(scope: Scope<'_>, since: Option<Token>) -> Result<News, Error> {
    let ids = &scope.rooms.ctx().db.ids;
    let device = (scope.session.user_nid, scope.session.device_no);
    let after = since.map_or(0, |since| since.to_device.min(scope.upto));
    let mut conn = scope.rooms.ctx().db.conn().await?;
    let span = (after, scope.upto);
    let messages = storage::to_device::list(&mut conn, device, span, MESSAGES_MAX).await?;
    let is_all = i64::try_from(messages.len()).is_ok_and(|n| n < MESSAGES_MAX);
    let mut news = News {
        told: scope.upto,
        ..News::default()
    };
    if let (false, Some((last, _))) = (is_all, messages.last()) {
        news.told = *last;
    }
    if after > 0 {
        // Deletes nothing most of the time, which costs no write.
        storage::to_device::delete_upto(&mut conn, device, after).await?;
    }
    news.to_device = messages
        .into_iter()
        .filter_map(|(_, body)| RawValue::from_string(body).ok())
        .collect();
    let counts = device_keys::count_one_time(&mut conn, device.0, device.1).await?;
    news.key_counts = counted(counts);
    news.unused_fallback = device_keys::list_unused_fallback(&mut conn, device.0, device.1).await?;
    if scope.since > 0 {
        let span = (scope.since, scope.upto);
        let changed =
            storage::to_device::list_changed(&mut conn, device.0, span, USERS_MAX).await?;
        drop(conn);
        let (sharing, apart): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|(_, shares)| *shares);
        let nids = |users: Vec<(UserNid, bool)>| -> Vec<UserNid> {
            users.into_iter().map(|(user, _)| user).collect()
        };
        let sharing = nids(sharing);
        news.changed = ids.user_ids_of(&sharing).await?;
        news.met = sharing.into_iter().map(|user| user.0).collect();
        news.left = ids.user_ids_of(&nids(apart)).await?;
    }
    Ok(news)
}
