//! Media for our users.

use axum::{Router, extract::State, response::Response};
use http::{HeaderMap, header};
use ruma::{
    api::client::authenticated_media::{
        get_content, get_content_as_filename, get_content_thumbnail, get_media_config,
        get_media_preview,
    },
    media::Method,
};
use serde_json::json;

use crate::{
    http::{
        App,
        download::to_client,
        error::ApiError,
        limits::Kind,
        mount,
        reply::{Object, RawJson},
        request::Authenticated,
    },
    media::{
        download::{self, Wanted},
        preview,
        thumbnail::{self, Frame},
    },
    users::tokens::Session,
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_content::v1::Request, _, _>(Router::new(), get_content);
    let router =
        mount::<get_content_as_filename::v1::Request, _, _>(router, get_content_as_filename);
    let router = mount::<get_content_thumbnail::v1::Request, _, _>(router, get_content_thumbnail);
    let router = mount::<get_media_preview::v1::Request, _, _>(router, get_media_preview);
    mount::<get_media_config::v1::Request, _, _>(router, get_media_config)
}

/// `GET /_matrix/client/v1/media/config`
async fn get_media_config(
    State(app): State<App>,
    _: Authenticated<get_media_config::v1::Request>,
) -> Object {
    Object(json!({ "m.upload.size": app.media.bytes_max() }))
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}`
async fn get_content(
    State(app): State<App>,
    headers: HeaderMap,
    Authenticated { request, .. }: Authenticated<get_content::v1::Request>,
) -> Result<Response, ApiError> {
    let wanted = Wanted {
        server: &request.server_name,
        media_id: &request.media_id,
        wait: request.timeout_ms,
        from_peers: true,
    };
    to_client(download::open(&app.media, wanted).await?, &headers).await
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}`
async fn get_content_as_filename(
    State(app): State<App>,
    headers: HeaderMap,
    Authenticated { request, .. }: Authenticated<get_content_as_filename::v1::Request>,
) -> Result<Response, ApiError> {
    let wanted = Wanted {
        server: &request.server_name,
        media_id: &request.media_id,
        wait: request.timeout_ms,
        from_peers: true,
    };
    let mut served = download::open(&app.media, wanted).await?;
    served.file_name = Some(request.filename);
    to_client(served, &headers).await
}

/// `GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}`
async fn get_content_thumbnail(
    State(app): State<App>,
    headers: HeaderMap,
    Authenticated { request, .. }: Authenticated<get_content_thumbnail::v1::Request>,
) -> Result<Response, ApiError> {
    let wanted = Wanted {
        server: &request.server_name,
        media_id: &request.media_id,
        wait: request.timeout_ms,
        from_peers: true,
    };
    let crop = request.method == Some(Method::Crop);
    let frame = Frame::new(request.width.into(), request.height.into(), crop);
    let served = thumbnail::open(&app.media, wanted, frame).await?;
    to_client(served, &headers).await
}

/// `GET /_matrix/client/v1/media/preview_url`
async fn get_media_preview(
    State(app): State<App>,
    headers: HeaderMap,
    Authenticated {
        session, request, ..
    }: Authenticated<get_media_preview::v1::Request>,
) -> Result<RawJson, ApiError> {
    url_preview(&app, &session, &headers, &request.url).await
}

/// The preview of a URL, as both addresses answer it.
pub(super) async fn url_preview(
    app: &App,
    session: &Session,
    headers: &HeaderMap,
    url: &str,
) -> Result<RawJson, ApiError> {
    app.limits.check_user(Kind::UrlPreview, session)?;
    let languages = headers.get(header::ACCEPT_LANGUAGE);
    let languages = languages.and_then(|value| value.to_str().ok());
    let preview = preview::get(&app.media, url, languages).await?;
    Ok(RawJson(preview.to_string()))
}
