//! Transactions: events and ephemeral data of peers.

use axum::{Router, extract::State};
use ruma::api::federation::transactions::send_transaction_message;

use crate::{
    http::{App, error::ApiError, mount, reply::RawJson, request::Signed},
    rooms::transaction::{self, Transaction},
};

pub(super) fn routes() -> Router<App> {
    mount::<send_transaction_message::v1::Request, _, _>(Router::new(), send_transaction_message)
}

/// `PUT /_matrix/federation/v1/send/{txnId}`
async fn send_transaction_message(
    State(app): State<App>,
    Signed {
        origin,
        request,
        turn: _turn,
    }: Signed<send_transaction_message::v1::Request>,
) -> Result<RawJson, ApiError> {
    if request.origin != origin {
        return Err(ApiError::forbidden("the transaction is of another server"));
    }
    let transaction = Transaction {
        origin: &origin,
        id: request.transaction_id.as_str(),
        pdus: &request.pdus,
        edus: &request.edus,
    };
    Ok(RawJson(
        transaction::receive(&app.rooms, transaction).await?,
    ))
}
