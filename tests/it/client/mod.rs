//! The client-server API, as a client sees it.

pub(crate) mod account;
mod admin_rooms;
mod bad_input;
mod dehydrated;
mod email;
mod encryption;
pub(crate) mod keys;
pub(crate) mod media;
mod moderation;
mod notifications;
pub(crate) mod presence;
mod profiles;
mod push;
mod pushers;
mod relations;
mod rendezvous;
mod rooms;
mod search;
mod server_notices;
mod signatures;
mod sliding;
pub(crate) mod spaces;
pub(crate) mod sticky;
mod sync;
pub(crate) mod threads;
mod upgrades;
pub(crate) mod user_directory;
