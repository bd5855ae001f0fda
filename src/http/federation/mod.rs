//! Server-server API, inbound: peers call us. A file for each module of ruma's.

mod authenticated_media;
mod authorization;
mod backfill;
mod device;
mod directory;
mod discovery;
mod event;
mod keys;
mod membership;
mod openid;
mod query;
mod space;
mod thirdparty;
mod transactions;

use std::sync::Arc;

use axum::Router;
use serde_json::value::RawValue;

use super::App;
use crate::event::pdu::Pdu;

/// The routes of the server-server API.
pub(super) fn routes() -> Router<App> {
    [
        authenticated_media::routes,
        authorization::routes,
        backfill::routes,
        device::routes,
        directory::routes,
        discovery::routes,
        event::routes,
        keys::routes,
        membership::routes,
        openid::routes,
        query::routes,
        space::routes,
        thirdparty::routes,
        transactions::routes,
    ]
    .into_iter()
    .fold(Router::new(), |router, routes| router.merge(routes()))
}

/// Events as they go over the wire.
fn raw(pdus: &[Arc<Pdu>]) -> Vec<Box<RawValue>> {
    pdus.iter().map(|pdu| pdu.raw()).collect()
}
