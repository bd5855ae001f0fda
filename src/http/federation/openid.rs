//! Who a user is, for whoever has a token of theirs.

use axum::{Router, extract::State};
use ruma::api::federation::openid::get_openid_userinfo;
use serde_json::json;

use crate::{
    context::Context,
    http::{App, error::ApiError, mount, reply::Object, request::Public},
    users::openid,
};

pub(super) fn routes() -> Router<App> {
    mount::<get_openid_userinfo::v1::Request, _, _>(Router::new(), get_openid_userinfo)
}

/// `GET /_matrix/federation/v1/openid/userinfo`
async fn get_openid_userinfo(
    State(ctx): State<Context>,
    Public { request, .. }: Public<get_openid_userinfo::v1::Request>,
) -> Result<Object, ApiError> {
    let user = openid::owner(&ctx, &request.access_token).await?;
    Ok(Object(json!({ "sub": user })))
}
