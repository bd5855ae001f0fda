//! Servers among themselves.

mod at_time;
mod devices;
mod graph;
mod media;
mod requests;
pub(crate) mod rooms;
