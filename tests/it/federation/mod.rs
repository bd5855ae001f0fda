//! Servers among themselves.

mod devices;
mod graph;
mod media;
mod requests;
pub(crate) mod rooms;
mod user_directory;
