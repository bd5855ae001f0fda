//! Server-server API, inbound: peers call us. A file for each module of ruma's.

use axum::Router;

use super::App;

/// The routes of the server-server API.
pub(super) fn routes() -> Router<App> {
    Router::new()
}
