//! The client-server API, as a client sees it.

mod account;
mod bad_input;
pub(crate) mod keys;
mod rooms;
mod sync;
