//! Amtsbote, a Matrix homeserver for public administration.
//!
//! The modules are floors of one house; a module imports lower floors only (`docs/ARCHITECTURE.md`,
//! held by `tests/tidy.rs`).

pub mod clock;
pub mod config;
pub mod context;
pub mod event;
pub mod federation;
pub mod http;
pub mod rooms;
pub mod storage;
pub mod users;
