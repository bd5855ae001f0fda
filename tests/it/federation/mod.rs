//! Servers among themselves.

mod at_time;
mod claims;
mod crowd;
mod delivery;
mod devices;
mod graph;
mod hostile;
mod invitations;
mod media;
mod outbound;
mod partial;
mod partitions;
mod policy;
mod presence;
mod requests;
pub(crate) mod rooms;
mod rotation;
mod rules;
mod scripted;
mod spaces;
mod third_party;
mod user_directory;
