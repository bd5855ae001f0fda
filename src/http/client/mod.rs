//! Client-server API: a file for each module of ruma's, a function for each endpoint.

mod account;
mod admin;
mod appservice;
mod authenticated_media;
mod backup;
mod config;
mod dehydrated_device;
mod delayed_events;
mod device;
mod directory;
mod discovery;
mod filter;
mod keys;
mod media;
mod membership;
mod message;
mod peeking;
mod presence;
mod profile;
mod push;
mod read_marker;
mod receipt;
mod relations;
mod rendezvous;
mod reporting;
mod room;
mod search;
mod session;
mod space;
mod state;
mod sync;
mod tag;
mod thirdparty;
mod threads;
mod to_device;
mod typing;
mod user_directory;
mod voip;

use axum::Router;

pub(super) use self::{
    account::close,
    session::{check_password, granted_body},
};
use super::App;

/// The routes of the client-server API.
pub(super) fn routes() -> Router<App> {
    [
        account::routes,
        admin::routes,
        appservice::routes,
        backup::routes,
        authenticated_media::routes,
        config::routes,
        dehydrated_device::routes,
        delayed_events::routes,
        device::routes,
        directory::routes,
        discovery::routes,
        filter::routes,
        keys::routes,
        media::routes,
        membership::routes,
        message::routes,
        peeking::routes,
        presence::routes,
        profile::routes,
        push::routes,
        read_marker::routes,
        receipt::routes,
        relations::routes,
        reporting::routes,
        rendezvous::routes,
        room::routes,
        search::routes,
        session::routes,
        space::routes,
        state::routes,
        sync::routes,
        tag::routes,
        thirdparty::routes,
        threads::routes,
        to_device::routes,
        typing::routes,
        user_directory::routes,
        voip::routes,
    ]
    .into_iter()
    .fold(Router::new(), |router, routes| router.merge(routes()))
}
