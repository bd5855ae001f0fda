//! The client-server API, as a client sees it.

mod account;
mod bad_input;
mod rooms;
mod sync;
