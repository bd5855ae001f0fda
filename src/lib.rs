//! Amtsbote, a Matrix homeserver for public administration.
//!
//! The modules are floors of one house; a module imports lower floors only (`docs/ARCHITECTURE.md`,
//! held by `tests/tidy.rs`).

pub mod appservices;
pub mod blobs;
pub mod cli;
pub mod clock;
pub mod config;
pub mod context;
pub mod devices;
pub mod event;
pub mod federation;
pub mod http;
pub mod jobs;
pub mod mail;
pub mod media;
pub mod oidc;
pub mod postgres;
pub mod rooms;
pub mod server;
pub mod storage;
pub mod sync;
pub mod telemetry;
pub mod users;
