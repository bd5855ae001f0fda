//! Integration tests: the real server on a real PostgreSQL, seen as its users and peers see it.

mod client;
mod federation;
mod flows;
mod rig;

pub(crate) use federation::rooms::a_life_together as federation_life;
