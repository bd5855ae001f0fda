//! Policy servers: a server that a room trusts to judge its events (specification, "Policy servers";
//! MSC4284). Events of ours are sent with its signature or not at all; events of others that come
//! without it are kept from clients.

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue,
    api::federation::policy::sign_event,
    events::{
        StateEventType, TimelineEventType,
        room::policy::{POLICY_SERVER_ED25519_SIGNING_KEY_ID as KEY_ID, RoomPolicyEventContent},
    },
    signatures::verify_policy_server_signature,
};

use super::{Error, Rooms, resident::Room};
use crate::{event::pdu::Pdu, federation, storage};

/// What became of asking for a signature.
#[derive(Debug)]
pub(super) enum Judged {
    /// The event with the signature.
    Signed(Arc<Pdu>),
    /// The policy server does not want it: its words.
    Refused(Error),
}

/// The policy server of a room, if it has one whose users are in the room.
pub(super) async fn of(
    rooms: &Rooms,
    room: &Room,
) -> Result<Option<RoomPolicyEventContent>, Error> {
    let head = room.head();
    let kind = StateEventType::RoomPolicy;
    let event = rooms
        .state_event(room, &head.state.entries, &kind, "")
        .await?;
    let Some(policy) = event.and_then(|event| event.content_as::<RoomPolicyEventContent>()) else {
        return Ok(None);
    };
    let server = rooms.ctx().db.ids.server(&policy.via).await?;
    let mut conn = rooms.ctx().db.conn().await?;
    let joined = storage::memberships::is_server_joined(&mut conn, room.nid, server).await?;
    Ok(joined.then_some(policy))
}

/// Whether an event names the policy server, and is judged by nobody.
pub(super) fn is_exempt(kind: &TimelineEventType, state_key: Option<&str>) -> bool {
    *kind == TimelineEventType::RoomPolicy && state_key == Some("")
}

/// Whether an event has the signature that the room asks for.
pub(super) fn is_signed(policy: &RoomPolicyEventContent, room: &Room, pdu: &Pdu) -> bool {
    let signed = |object| verify_policy_server_signature(policy, &object, &room.version.rules);
    pdu.object().is_ok_and(|object| signed(object).is_ok())
}

/// Asks the policy server for its signature. An error is a failure of the way there, which says
/// nothing of the event.
pub(super) async fn judge(
    rooms: &Rooms,
    room: &Room,
    policy: &RoomPolicyEventContent,
    pdu: &Arc<Pdu>,
) -> Result<Judged, Error> {
    if policy.via == rooms.ctx().server_name() {
        return Err(Error::Remote("this server is no policy server".to_owned()));
    }
    let request = sign_event::v1::Request::new(pdu.raw());
    let answer = match rooms.ctx().federation.request(&policy.via, request).await {
        Ok(answer) => answer,
        Err(federation::Error::Remote {
            status,
            errcode,
            message,
        }) if (400..500).contains(&status) && status != 429 => {
            return Ok(Judged::Refused(Error::Refused {
                errcode,
                message,
                status,
            }));
        }
        Err(error) => return Err(Error::Remote(format!("policy server: {error}"))),
    };
    let Some(signature) = answer.ed25519_signature(&policy.via) else {
        let message = "the policy server gave no signature".to_owned();
        return Ok(Judged::Refused(Error::Forbidden(message)));
    };
    let signed = Arc::new(merged(pdu, room, policy, signature)?);
    if is_signed(policy, room, &signed) {
        Ok(Judged::Signed(signed))
    } else {
        let message = "the policy server gave a wrong signature".to_owned();
        Ok(Judged::Refused(Error::Forbidden(message)))
    }
}

/// The event with one signature more; those that it has stay.
fn merged(
    pdu: &Pdu,
    room: &Room,
    policy: &RoomPolicyEventContent,
    signature: &str,
) -> Result<Pdu, Error> {
    let mut object = pdu.object()?;
    let all = object
        .entry("signatures".to_owned())
        .or_insert_with(|| CanonicalJsonValue::Object(CanonicalJsonObject::new()));
    if let CanonicalJsonValue::Object(all) = all {
        let of_server = all
            .entry(policy.via.to_string())
            .or_insert_with(|| CanonicalJsonValue::Object(CanonicalJsonObject::new()));
        if let CanonicalJsonValue::Object(of_server) = of_server {
            let signature = CanonicalJsonValue::String(signature.to_owned());
            of_server.insert(KEY_ID.to_owned(), signature);
        }
    }
    Ok(Pdu::from_object(object, &room.version)?)
}
