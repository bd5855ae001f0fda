//! Integration tests: the real server on a real PostgreSQL, seen as its users and peers see it.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is not as it has to be"
)]

mod appservices;
mod client;
mod federation;
mod flows;
mod migrations;
mod rig;

pub(crate) use federation::rooms::a_life_together as federation_life;
