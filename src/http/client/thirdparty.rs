//! Other networks, as application services know them.

use axum::{Router, extract::State};
use ruma::api::client::thirdparty::{
    get_location_for_protocol, get_location_for_room_alias, get_protocol, get_protocols,
    get_user_for_protocol, get_user_for_user_id,
};
use serde_json::{Value, json};

use crate::{
    context::Context,
    http::{App, error::ApiError, mount, reply::Object, request::Authenticated},
};

pub(super) fn routes() -> Router<App> {
    let router = mount::<get_protocols::v3::Request, _, _>(Router::new(), get_protocols);
    let router = mount::<get_protocol::v3::Request, _, _>(router, get_protocol);
    let router =
        mount::<get_location_for_protocol::v3::Request, _, _>(router, get_location_for_protocol);
    let router = mount::<get_location_for_room_alias::v3::Request, _, _>(
        router,
        get_location_for_room_alias,
    );
    let router = mount::<get_user_for_protocol::v3::Request, _, _>(router, get_user_for_protocol);
    mount::<get_user_for_user_id::v3::Request, _, _>(router, get_user_for_user_id)
}

/// `GET /_matrix/client/v3/thirdparty/protocols`
async fn get_protocols(
    State(ctx): State<Context>,
    _: Authenticated<get_protocols::v3::Request>,
) -> Object {
    Object(Value::Object(ctx.appservices.protocols(None).await))
}

/// `GET /_matrix/client/v3/thirdparty/protocol/{protocol}`
async fn get_protocol(
    State(ctx): State<Context>,
    Authenticated { request, .. }: Authenticated<get_protocol::v3::Request>,
) -> Result<Object, ApiError> {
    let mut found = ctx.appservices.protocols(Some(&request.protocol)).await;
    found
        .remove(&request.protocol)
        .map(Object)
        .ok_or_else(|| ApiError::not_found("no such network"))
}

/// `GET /_matrix/client/v3/thirdparty/location/{protocol}`
async fn get_location_for_protocol(
    State(ctx): State<Context>,
    Authenticated { request, .. }: Authenticated<get_location_for_protocol::v3::Request>,
) -> Object {
    let fields: Vec<(String, String)> = request.fields.into_iter().collect();
    entries(&ctx, "location", Some(&request.protocol), &fields).await
}

/// `GET /_matrix/client/v3/thirdparty/location`
async fn get_location_for_room_alias(
    State(ctx): State<Context>,
    Authenticated { request, .. }: Authenticated<get_location_for_room_alias::v3::Request>,
) -> Object {
    let alias = [("alias".to_owned(), request.alias.to_string())];
    entries(&ctx, "location", None, &alias).await
}

/// `GET /_matrix/client/v3/thirdparty/user/{protocol}`
async fn get_user_for_protocol(
    State(ctx): State<Context>,
    Authenticated { request, .. }: Authenticated<get_user_for_protocol::v3::Request>,
) -> Object {
    let fields: Vec<(String, String)> = request.fields.into_iter().collect();
    entries(&ctx, "user", Some(&request.protocol), &fields).await
}

/// `GET /_matrix/client/v3/thirdparty/user`
async fn get_user_for_user_id(
    State(ctx): State<Context>,
    Authenticated { request, .. }: Authenticated<get_user_for_user_id::v3::Request>,
) -> Object {
    let user = [("userid".to_owned(), request.userid.to_string())];
    entries(&ctx, "user", None, &user).await
}

async fn entries(
    ctx: &Context,
    kind: &str,
    protocol: Option<&str>,
    query: &[(String, String)],
) -> Object {
    let found = ctx.appservices.third_party_entries(kind, protocol, query);
    Object(json!(found.await))
}
