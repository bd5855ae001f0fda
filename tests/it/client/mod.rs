//! The client-server API, as a client sees it.

mod account;
mod bad_input;
pub(crate) mod keys;
pub(crate) mod media;
mod rooms;
mod sync;
pub(crate) mod user_directory;
