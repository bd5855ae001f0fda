//! Servers among themselves.

mod devices;
mod graph;
mod hostile;
mod media;
mod partitions;
mod requests;
pub(crate) mod rooms;
mod scripted;
