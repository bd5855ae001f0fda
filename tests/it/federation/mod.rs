//! Servers among themselves.

mod at_time;
mod devices;
mod graph;
mod hostile;
mod media;
mod outbound;
mod partial;
mod partitions;
mod policy;
mod requests;
pub(crate) mod rooms;
mod rules;
mod scripted;
mod user_directory;
