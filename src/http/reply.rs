//! Answers.

use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use ruma::api::{OutgoingResponse, OutgoingResponseExt};

use super::error::ApiError;

/// An answer as a type of ruma.
#[derive(Debug)]
pub struct Reply<R>(pub R);

impl<R: OutgoingResponse> IntoResponse for Reply<R> {
    fn into_response(self) -> Response {
        match self.0.try_into_http_response::<BytesMut>() {
            Ok(answer) => answer.map(|body| axum::body::Body::from(body.freeze())),
            Err(error) => ApiError::internal(&error).into_response(),
        }
    }
}

/// An answer as JSON that is written already.
#[derive(Debug)]
pub struct RawJson(pub String);

impl IntoResponse for RawJson {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

/// An answer put together by hand.
#[derive(Debug)]
pub struct Object(pub serde_json::Value);

impl IntoResponse for Object {
    fn into_response(self) -> Response {
        RawJson(self.0.to_string()).into_response()
    }
}

/// An answer in JSON that is written as it is read.
#[derive(Debug)]
pub struct Streamed(pub axum::body::Body);

impl IntoResponse for Streamed {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}
