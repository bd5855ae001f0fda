//! Servers among themselves.

mod devices;
mod graph;
mod requests;
pub(crate) mod rooms;
