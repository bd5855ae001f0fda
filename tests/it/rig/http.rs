//! Requests of tests. Whatever a server of ours answers is held against the specification.

use std::{collections::BTreeSet, sync::RwLock};

use reqwest::{
    Client, RequestBuilder, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};

use super::openapi::Operation;

/// Ports at which servers of ours were reached: other servers have faults of their own.
static OURS: RwLock<BTreeSet<u16>> = RwLock::new(BTreeSet::new());

/// What is answered at this port has to be as the specification defines it.
pub(super) fn is_ours(port: u16) {
    OURS.write().unwrap().insert(port);
}

/// A client that asks servers directly.
pub(crate) fn client() -> Client {
    // Fails when it was done before, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

/// Requests whose answers are checked; tests have no others (`tests/tidy.rs`).
pub(crate) trait Ask {
    /// The answer; the test fails where it is not as the specification defines it.
    async fn ask(self) -> reqwest::Result<Response>;
}

impl Ask for RequestBuilder {
    async fn ask(self) -> reqwest::Result<Response> {
        let (client, request) = self.build_split();
        let request = request?;
        let url = request.url();
        let port = url.port_or_known_default().unwrap_or_default();
        let is_ours = OURS.read().unwrap().contains(&port);
        // What is sent later (MSC4140) is answered in a way that the specification does not have yet.
        let is_delayed = url.query().is_some_and(|query| query.contains("delay="));
        let operation = Operation::of(request.method().as_str(), url.path());
        let answer = client.execute(request).await?;
        match operation.filter(|_| is_ours && !is_delayed) {
            Some(operation) => checked(operation, answer).await,
            None => Ok(answer),
        }
    }
}

/// The same answer, read and found good.
async fn checked(operation: &Operation, answer: Response) -> reqwest::Result<Response> {
    let status = answer.status();
    let header = |name| {
        answer
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    // A redirection has no body, and a file is what it is.
    let is_empty = status.is_redirection() && header(CONTENT_LENGTH) == Some("0");
    if is_empty || operation.is_file(status.as_u16()) {
        return Ok(answer);
    }
    let kind = header(CONTENT_TYPE).unwrap_or_default().to_owned();
    // There a browser looks, and people are told what is wrong in a page.
    if operation.is_for_browsers() && kind.starts_with("text/html") {
        return Ok(answer);
    }
    let mut again = http::Response::builder()
        .status(status)
        .version(answer.version());
    for (name, value) in answer.headers() {
        again = again.header(name, value);
    }
    let body = answer.bytes().await?;
    operation.check(status.as_u16(), &kind, &body);
    Ok(again.body(body).unwrap().into())
}
