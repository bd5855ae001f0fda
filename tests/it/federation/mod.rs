//! Servers among themselves.

mod graph;
mod requests;
pub(crate) mod rooms;
