//! Servers among themselves.

mod requests;
pub(crate) mod rooms;
