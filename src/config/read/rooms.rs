//! The sections `[rooms]`, `[delayed_events]` and `[rendezvous]`.

use std::str::FromStr;

use ruma::RoomVersionId;

use super::super::{DelayedEvents, Encryption, Rendezvous, Rooms, source::Source};

/// Room versions that can be the default: older ones are made only where a client asks for them.
const ROOM_VERSIONS: [RoomVersionId; 3] =
    [RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12];

impl FromStr for Encryption {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "off" => Ok(Self::Off),
            "private" => Ok(Self::Private),
            "all" => Ok(Self::All),
            _ => Err(()),
        }
    }
}

pub(super) fn read(source: &mut Source, defaults: Rooms) -> Rooms {
    let key = "rooms.default_version";
    let remedy = "is not a room version that new rooms can have; give \"10\", \"11\" or \"12\"";
    let version = source.parse::<RoomVersionId>(key, remedy);
    let default_version = version.unwrap_or(defaults.default_version);
    if !ROOM_VERSIONS.contains(&default_version) {
        source.problem(key, Some(format!("\"{default_version}\"")), remedy);
    }
    let remedy = "is not a choice; give \"off\", \"private\" or \"all\"";
    let encryption = source.parse("rooms.encryption", remedy);
    let encryption = encryption.unwrap_or(defaults.encryption);
    let key = "rooms.encryption_required";
    let encryption_required = source.flag(key, defaults.encryption_required);
    if encryption_required && encryption == Encryption::Off {
        let remedy = "has no effect while rooms.encryption is \"off\"; say which rooms are meant";
        source.problem(key, None, remedy);
    }
    Rooms {
        default_version,
        encryption,
        encryption_required,
        keep_redacted_days: number(
            source,
            "rooms.keep_redacted_days",
            defaults.keep_redacted_days,
            KEEP_REDACTED_DAYS_MAX,
        ),
    }
}

/// Who wants redacted events longer than a year does not want them redacted.
const KEEP_REDACTED_DAYS_MAX: u32 = 366;

/// A number that is at most `most`.
fn number(source: &mut Source, key: &'static str, default: u32, most: u32) -> u32 {
    let number = source.number(key).unwrap_or(default.into());
    let fits = u32::try_from(number).ok().filter(|it| *it <= most);
    fits.unwrap_or_else(|| {
        let remedy = format!("is more than {most}");
        source.problem(key, Some(number.to_string()), remedy);
        default
    })
}

/// Who wants events sent later than that does not mean it.
const DELAY_S_MAX: u32 = 90 * 86_400;
/// Delayed events of one user.
const SCHEDULED_MAX: u32 = 10_000;

pub(super) fn delayed_events(source: &mut Source, defaults: DelayedEvents) -> DelayedEvents {
    DelayedEvents {
        max_delay_s: number(
            source,
            "delayed_events.max_delay_s",
            defaults.max_delay_s,
            DELAY_S_MAX,
        ),
        max_scheduled: number(
            source,
            "delayed_events.max_scheduled",
            defaults.max_scheduled,
            SCHEDULED_MAX,
        ),
    }
}

pub(super) fn rendezvous(source: &mut Source, defaults: Rendezvous) -> Rendezvous {
    let key = "rendezvous.enabled";
    let enabled = source.flag(key, defaults.enabled);
    if enabled && !source.has("well_known.client") {
        let remedy = "needs well_known.client, the address that devices are told";
        source.problem(key, None, remedy);
    }
    Rendezvous { enabled }
}
