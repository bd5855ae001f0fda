//! The client-server API, as a client sees it.

pub(crate) mod account;
mod admin_rooms;
mod bad_input;
pub(crate) mod keys;
pub(crate) mod media;
pub(crate) mod presence;
mod push;
mod relations;
mod rooms;
mod sliding;
pub(crate) mod spaces;
mod sync;
mod upgrades;
pub(crate) mod user_directory;
