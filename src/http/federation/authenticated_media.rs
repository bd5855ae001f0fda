//! Media of ours for peers.

use axum::{Router, extract::State, response::Response};
use ruma::{
    api::federation::authenticated_media::{get_content, get_content_thumbnail},
    media::Method,
};

use crate::{
    http::{App, download::to_peer, error::ApiError, mount, request::Signed},
    media::{
        download::{self, Wanted},
        thumbnail::{self, Frame},
    },
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_content::v1::Request, _, _>(Router::new(), get_content);
    mount::<get_content_thumbnail::v1::Request, _, _>(router, get_content_thumbnail)
}

/// `GET /_matrix/federation/v1/media/download/{mediaId}`
async fn get_content(
    State(app): State<App>,
    Signed {
        request,
        turn: _turn,
        ..
    }: Signed<get_content::v1::Request>,
) -> Result<Response, ApiError> {
    let wanted = Wanted {
        server: app.ctx.server_name(),
        media_id: &request.media_id,
        wait: request.timeout_ms,
        from_peers: false,
    };
    to_peer(download::open(&app.media, wanted).await?).await
}

/// `GET /_matrix/federation/v1/media/thumbnail/{mediaId}`
async fn get_content_thumbnail(
    State(app): State<App>,
    Signed {
        request,
        turn: _turn,
        ..
    }: Signed<get_content_thumbnail::v1::Request>,
) -> Result<Response, ApiError> {
    let wanted = Wanted {
        server: app.ctx.server_name(),
        media_id: &request.media_id,
        wait: request.timeout_ms,
        from_peers: false,
    };
    let crop = request.method == Some(Method::Crop);
    let frame = Frame::new(request.width.into(), request.height.into(), crop);
    to_peer(thumbnail::open(&app.media, wanted, frame).await?).await
}
