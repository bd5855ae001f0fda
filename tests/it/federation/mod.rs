//! Servers among themselves.

mod at_time;
mod delivery;
mod devices;
mod graph;
mod hostile;
mod media;
mod partial;
mod partitions;
mod policy;
mod requests;
pub(crate) mod rooms;
mod scripted;
mod spaces;
mod third_party;
mod user_directory;
