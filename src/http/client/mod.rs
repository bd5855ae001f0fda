//! Client-server API: a file for each module of ruma's, a function for each endpoint.

mod account;
mod config;
mod device;
mod discovery;
mod filter;
mod membership;
mod profile;
mod push;
mod session;
mod tag;

use axum::Router;

use super::App;

/// The routes of the client-server API.
pub(super) fn routes() -> Router<App> {
    [
        account::routes,
        config::routes,
        device::routes,
        discovery::routes,
        filter::routes,
        membership::routes,
        profile::routes,
        push::routes,
        session::routes,
        tag::routes,
    ]
    .into_iter()
    .fold(Router::new(), |router, routes| router.merge(routes()))
}
