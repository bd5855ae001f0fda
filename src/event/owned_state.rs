//! State that belongs to a user (MSC3757): in rooms of some versions a state key may be a user id, or one
//! with `_` and anything behind it. Its owner sets it, and who stands above the owner.

use std::sync::Arc;

use ruma::{
    OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType},
};

use super::{auth::Power, pdu::Pdu, version::RoomVersion};

/// The owner of a state key that begins with `@`; `None`: it does not begin with a user id.
pub fn owner(state_key: &str) -> Option<OwnedUserId> {
    let server = state_key.find(':')? + 1;
    let end = state_key[server..].find('_');
    let user = end.map_or(state_key, |end| &state_key[..server + end]);
    UserId::parse(user).ok()
}

/// Whether nobody could set such a state in a room of that version.
pub fn is_malformed(version: &RoomVersion, pdu: &Pdu) -> bool {
    version.owned_state && owned_key(pdu).is_some_and(|key| owner(key).is_none())
}

/// The event as the other rules are to see it: where the sender may set a state of somebody, it is
/// as good as the sender's own.
///
/// # Errors
///
/// The sender may not.
pub(super) fn as_own(
    version: &RoomVersion,
    pdu: &Arc<Pdu>,
    state: impl Fn(&StateEventType, &str) -> Option<Arc<Pdu>>,
) -> Result<Arc<Pdu>, String> {
    let Some(key) = owned_key(pdu).filter(|_| version.owned_state) else {
        return Ok(pdu.clone());
    };
    let owner = owner(key).ok_or("the state key is no user id, nor begins with one and `_`")?;
    if owner != pdu.sender {
        let create = state(&StateEventType::RoomCreate, "").ok_or("there is no create event")?;
        let levels = state(&StateEventType::RoomPowerLevels, "");
        let power = Power::new(version, &create, levels.as_ref());
        if power.of(&pdu.sender) <= power.of(&owner) {
            return Err("this state belongs to somebody else".to_owned());
        }
    }
    Ok(Arc::new(Pdu {
        state_key: Some(pdu.sender.to_string()),
        ..Pdu::clone(pdu)
    }))
}

/// The state key, if it has an owner other than by the rules of every version.
fn owned_key(pdu: &Pdu) -> Option<&str> {
    let key = pdu.state_key.as_deref()?;
    let is_owned = key.starts_with('@') && key != pdu.sender.as_str();
    (is_owned && pdu.kind != TimelineEventType::RoomMember).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::owner;

    #[test]
    fn a_key_begins_with_its_owner() {
        let of = |key| owner(key).map(|user| user.to_string());
        let alice = Some("@alice:amt.example".to_owned());
        assert_eq!(of("@alice:amt.example"), alice);
        assert_eq!(of("@alice:amt.example_PHONE:!@#_x"), alice);
        assert_eq!(
            of("@a_b:amt.example:8448_x"),
            Some("@a_b:amt.example:8448".to_owned())
        );
        for key in [
            "@oops",
            "@alice:amt.example@x_",
            "@alice:_x",
            "alice:amt.example",
            "",
        ] {
            assert_eq!(of(key), None, "{key}");
        }
    }
}
