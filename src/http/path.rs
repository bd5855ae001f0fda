//! Parts of a path that are no request of ruma's: what cannot be one is told as every other error.

use axum::extract::{FromRequestParts, Path as Parsed};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Parts of the path, decoded.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Parsed::from_request_parts(parts, state).await {
            Ok(Parsed(value)) => Ok(Self(value)),
            Err(error) => Err(ApiError::invalid_param(&error.body_text())),
        }
    }
}
