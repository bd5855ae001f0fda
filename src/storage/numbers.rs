//! The numbers that stand for long Matrix identifiers, a type for each kind.

macro_rules! nid {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);
    };
}

nid! {
    /// A room.
    RoomNid(i64)
}
nid! {
    /// A user, local or remote.
    UserNid(i64)
}
nid! {
    /// An event.
    EventNid(i64)
}
nid! {
    /// A homeserver.
    ServerNid(i32)
}
nid! {
    /// An event type.
    TypeNid(i32)
}
nid! {
    /// A pair of event type and state key; negative: `m.room.member` of the user of that number.
    SKeyNid(i64)
}
