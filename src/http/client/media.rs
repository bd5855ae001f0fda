//! Uploads, and the old addresses that ask for no account.

use axum::{Router, extract::State, response::Response};
use http::HeaderMap;
use ruma::api::client::media::{
    create_content, create_content_async, create_mxc_uri, get_content, get_content_as_filename,
    get_content_thumbnail, get_media_config, get_media_preview,
};
use ruma::media::Method;
use serde_json::json;

use super::authenticated_media::url_preview;
use crate::{
    http::{
        App,
        download::to_client,
        error::ApiError,
        limits::Kind,
        mount,
        reply::{Object, RawJson},
        request::{Authenticated, Public, Upload},
    },
    media::{
        download::{self, Wanted},
        thumbnail::{self, Frame},
        upload::{self, Named},
    },
};

#[expect(deprecated, reason = "old clients call the old addresses")]
pub(super) fn routes() -> Router<App> {
    let router = mount::<create_content::v3::Request, _, _>(Router::new(), create_content);
    let router = mount::<create_mxc_uri::v1::Request, _, _>(router, create_mxc_uri);
    let router = mount::<create_content_async::v3::Request, _, _>(router, create_content_async);
    let router = mount::<get_media_config::v3::Request, _, _>(router, get_media_config);
    let router = mount::<get_content::v3::Request, _, _>(router, get_content);
    let router =
        mount::<get_content_as_filename::v3::Request, _, _>(router, get_content_as_filename);
    let router = mount::<get_media_preview::v3::Request, _, _>(router, get_media_preview);
    mount::<get_content_thumbnail::v3::Request, _, _>(router, get_content_thumbnail)
}

/// `POST /_matrix/media/v3/upload`
async fn create_content(
    State(app): State<App>,
    Upload {
        session,
        request,
        body,
        length,
    }: Upload<create_content::v3::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::Media, &session)?;
    upload::check_length(&app.media, length)?;
    let named = Named::new(request.content_type, request.filename);
    let stream = body.into_data_stream();
    let id = upload::store(&app.media, session.user_nid, &named, stream).await?;
    let server = app.ctx.server_name();
    Ok(Object(
        json!({ "content_uri": format!("mxc://{server}/{id}") }),
    ))
}

/// `POST /_matrix/media/v1/create`
async fn create_mxc_uri(
    State(app): State<App>,
    Authenticated { session, .. }: Authenticated<create_mxc_uri::v1::Request>,
) -> Result<Object, ApiError> {
    app.limits.check_user(Kind::Media, &session)?;
    let (id, expires) = upload::reserve(&app.media, session.user_nid).await?;
    let server = app.ctx.server_name();
    Ok(Object(json!({
        "content_uri": format!("mxc://{server}/{id}"),
        "unused_expires_at": expires,
    })))
}

/// `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`
async fn create_content_async(
    State(app): State<App>,
    Upload {
        session,
        request,
        body,
        length,
    }: Upload<create_content_async::v3::Request>,
) -> Result<Object, ApiError> {
    upload::check_length(&app.media, length)?;
    let named = Named::new(request.content_type, request.filename);
    let address = (&*request.server_name, &*request.media_id);
    let stream = body.into_data_stream();
    upload::fill(&app.media, session.user_nid, address, &named, stream).await?;
    Ok(Object(json!({})))
}

/// `GET /_matrix/media/v3/config`
#[expect(deprecated, reason = "old clients call the old addresses")]
async fn get_media_config(
    State(app): State<App>,
    _: Authenticated<get_media_config::v3::Request>,
) -> Object {
    Object(json!({ "m.upload.size": app.media.bytes_max() }))
}

/// `GET /_matrix/media/v3/preview_url`
#[expect(deprecated, reason = "old clients call the old addresses")]
async fn get_media_preview(
    State(app): State<App>,
    headers: HeaderMap,
    Authenticated {
        session, request, ..
    }: Authenticated<get_media_preview::v3::Request>,
) -> Result<RawJson, ApiError> {
    url_preview(&app, &session, &headers, &request.url).await
}

/// Media is for those who have an account, unless the administrator opened the old addresses.
fn require_open(app: &App) -> Result<(), ApiError> {
    if app.ctx.config.media.unauthenticated {
        return Ok(());
    }
    Err(ApiError::not_found(
        "media is served to logged-in users at /_matrix/client/v1/media",
    ))
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}`
#[expect(deprecated, reason = "old clients call the old addresses")]
async fn get_content(
    State(app): State<App>,
    headers: HeaderMap,
    Public { request, .. }: Public<get_content::v3::Request>,
) -> Result<Response, ApiError> {
    require_open(&app)?;
    let wanted = Wanted {
        server: &request.server_name,
        media_id: &request.media_id,
        wait: request.timeout_ms,
        from_peers: request.allow_remote,
    };
    to_client(download::open(&app.media, wanted).await?, &headers).await
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}`
#[expect(deprecated, reason = "old clients call the old addresses")]
async fn get_content_as_filename(
    State(app): State<App>,
    headers: HeaderMap,
    Public { request, .. }: Public<get_content_as_filename::v3::Request>,
) -> Result<Response, ApiError> {
    require_open(&app)?;
    let wanted = Wanted {
        server: &request.server_name,
        media_id: &request.media_id,
        wait: request.timeout_ms,
        from_peers: request.allow_remote,
    };
    let mut served = download::open(&app.media, wanted).await?;
    served.file_name = Some(request.filename);
    to_client(served, &headers).await
}

/// `GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}`
#[expect(deprecated, reason = "old clients call the old addresses")]
async fn get_content_thumbnail(
    State(app): State<App>,
    headers: HeaderMap,
    Public { request, .. }: Public<get_content_thumbnail::v3::Request>,
) -> Result<Response, ApiError> {
    require_open(&app)?;
    let wanted = Wanted {
        server: &request.server_name,
        media_id: &request.media_id,
        wait: request.timeout_ms,
        from_peers: request.allow_remote,
    };
    let crop = request.method == Some(Method::Crop);
    let frame = Frame::new(request.width.into(), request.height.into(), crop);
    let served = thumbnail::open(&app.media, wanted, frame).await?;
    to_client(served, &headers).await
}
