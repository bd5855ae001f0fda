//! The only floor that knows HTTP: routes, extractors, error codes.

pub mod admin;
pub mod client;
pub mod download;
pub mod email;
pub mod error;
pub mod fair;
mod fallback;
pub mod federation;
pub mod health;
pub mod layers;
pub mod limits;
mod login_page;
mod oauth;
mod page;
pub mod path;
pub mod reply;
pub mod request;
pub mod sso;
pub mod standing;
mod terms;
mod validity;
mod well_known;

use axum::{Router, extract::FromRef, handler::Handler, routing::MethodFilter};
use metrics_exporter_prometheus::PrometheusHandle;
use ruma::api::{Metadata, path_builder::PathBuilder};
use tokio_util::sync::CancellationToken;

use self::{error::ApiError, fair::Fair, limits::Limits};
use crate::{
    config::Serve,
    context::Context,
    federation::sender::Sender,
    media::Media,
    rooms::Rooms,
    sync::{Hub, sliding::Connections},
    users::{seen::Seen, tokens::Tokens},
};

/// What handlers reach.
#[derive(Clone, Debug)]
pub struct App {
    /// Infrastructure.
    pub ctx: Context,
    /// The event graph.
    pub rooms: Rooms,
    /// Sessions.
    pub tokens: Tokens,
    /// When devices were last used.
    pub seen: Seen,
    /// The media repository.
    pub media: Media,
    /// Waiting clients.
    pub hub: Hub,
    /// What connections of sliding sync were told.
    pub connections: Connections,
    /// Sends to peers.
    pub sender: Sender,
    /// Rate limits.
    pub limits: Limits,
    /// Places of peers.
    pub fair: Fair,
    /// Nonces of shared-secret registration.
    pub nonces: admin::Nonces,
    /// Figures for `/metrics`.
    pub metrics: Option<PrometheusHandle>,
    /// Fires when the server is about to stop: long polls are answered.
    pub stopping: CancellationToken,
}

impl FromRef<App> for Context {
    fn from_ref(app: &App) -> Self {
        app.ctx.clone()
    }
}

impl FromRef<App> for Rooms {
    fn from_ref(app: &App) -> Self {
        app.rooms.clone()
    }
}

/// The router of one listener.
pub fn router(app: App, serve: &[Serve]) -> Router {
    let mut router = health::routes();
    if serve.contains(&Serve::Client) {
        router = router
            .merge(client::routes())
            .merge(email::routes())
            .merge(sso::routes())
            .merge(oauth::routes())
            .merge(fallback::routes())
            .merge(login_page::routes())
            .merge(page::routes())
            .merge(terms::routes())
            .merge(validity::routes())
            .merge(admin::client_routes())
            .merge(well_known::client_routes());
    }
    if serve.contains(&Serve::Federation) {
        router = router
            .merge(federation::routes())
            .merge(well_known::server_routes());
    }
    if serve.contains(&Serve::Admin) {
        router = router.merge(admin::routes());
    }
    if serve.contains(&Serve::Metrics) {
        router = router.merge(health::metrics_routes());
    }
    let router = router
        .fallback(|| async { ApiError::unrecognized(http::StatusCode::NOT_FOUND) })
        .method_not_allowed_fallback(|| async {
            ApiError::unrecognized(http::StatusCode::METHOD_NOT_ALLOWED)
        });
    layers::around(router.with_state(app))
}

/// Mounts a handler under every path of its request type (stable ones, `r0`, unstable ones), so
/// that path and method cannot drift from the types.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a handler is a function item: there is nothing to borrow"
)]
pub(crate) fn mount<R, H, T>(router: Router<App>, handler: H) -> Router<App>
where
    R: Metadata,
    H: Handler<T, App>,
    T: 'static,
{
    let filter = MethodFilter::try_from(R::METHOD).expect("every endpoint has a usual method");
    let mut mounted = std::collections::BTreeSet::new();
    R::PATH_BUILDER
        .all_paths()
        .filter(|path| mounted.insert(*path))
        .fold(router, |router, path| {
            router.route(path, axum::routing::on(filter, handler.clone()))
        })
}
