//! Calls to application services (specification, Application Service API).

use std::time::Duration;

use http::{Method, header::CONTENT_TYPE};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Error, Services};
use crate::{config::Appservice, federation::body};

/// Time to connect.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a service may take over a transaction.
const TRANSACTION_TIMEOUT: Duration = Duration::from_mins(1);
/// How long it may take over a question, for which somebody waits.
pub(super) const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take over a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of an answer that is an error, as far as it is shown.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// What stands for itself in a part of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A request to a service.
#[derive(Clone, Copy, Debug)]
struct Call<'a> {
    method: &'a Method,
    /// Path below `/_matrix/app/v1`.
    path: &'a str,
    /// Where the same was before the specification had versions (its "Legacy routes").
    legacy: Option<&'a str>,
    query: &'a [(String, String)],
    body: Option<&'a str>,
    timeout: Duration,
}

/// A part of a path.
pub(super) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

impl Services {
    /// Sends a transaction; the same one as often as it takes.
    pub async fn transaction(
        &self,
        service: &Appservice,
        txn_id: &str,
        body: &str,
    ) -> Result<(), Error> {
        let path = format!("/transactions/{}", segment(txn_id));
        let call = Call {
            method: &Method::PUT,
            path: &path,
            legacy: Some(&path),
            query: &[],
            body: Some(body),
            timeout: TRANSACTION_TIMEOUT,
        };
        self.call(service, call).await.map(|_| ())
    }

    /// Asks whether a user or an alias is there (`/users/…`, `/rooms/…`).
    pub(super) async fn exists(&self, service: &Appservice, path: &str) -> Result<bool, Error> {
        let call = Call {
            method: &Method::GET,
            path,
            legacy: Some(path),
            query: &[],
            body: None,
            timeout: QUESTION_TIMEOUT,
        };
        match self.call(service, call).await {
            Ok(_) => Ok(true),
            Err(Error::Status { status: 404, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks about another network (`/thirdparty/…`).
    pub(super) async fn third_party(
        &self,
        service: &Appservice,
        path: &str,
        query: &[(String, String)],
    ) -> Result<Value, Error> {
        let legacy = format!("/_matrix/app/unstable{path}");
        let call = Call {
            method: &Method::GET,
            path,
            legacy: Some(&legacy),
            query,
            body: None,
            timeout: QUESTION_TIMEOUT,
        };
        let body = self.call(service, call).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Nonsense(error.to_string()))
    }

    /// Asks for a sign of life; how long it took.
    pub async fn ping(
        &self,
        service: &Appservice,
        transaction_id: Option<&str>,
    ) -> Result<Duration, Error> {
        let body = match transaction_id {
            Some(id) => json!({ "transaction_id": id }),
            None => json!({}),
        };
        let body = body.to_string();
        let call = Call {
            method: &Method::POST,
            path: "/ping",
            legacy: None,
            query: &[],
            body: Some(&body),
            timeout: PING_TIMEOUT,
        };
        let begun = std::time::Instant::now();
        self.call(service, call).await?;
        Ok(begun.elapsed())
    }

    async fn call(&self, service: &Appservice, call: Call<'_>) -> Result<Vec<u8>, Error> {
        let path = format!("/_matrix/app/v1{}", call.path);
        let answer = self.once(service, call, &path, call.query).await;
        let Some(legacy) = call.legacy.filter(|_| is_unknown_path(&answer)) else {
            return answer;
        };
        // Who is that old looks for the token here.
        let mut query = call.query.to_vec();
        query.push(("access_token".to_owned(), service.hs_token.0.clone()));
        self.once(service, call, legacy, &query).await
    }

    async fn once(
        &self,
        service: &Appservice,
        call: Call<'_>,
        path: &str,
        query: &[(String, String)],
    ) -> Result<Vec<u8>, Error> {
        let mut url = service.url.clone().ok_or(Error::NoUrl)?;
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let http = reqwest::Client::clone(&self.0.http.load());
        let mut request = http
            .request(call.method.clone(), url)
            .timeout(call.timeout)
            .bearer_auth(&service.hs_token.0);
        if let Some(body) = call.body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_owned());
        }
        let answer = request.send().await.map_err(unreached)?;
        let status = answer.status();
        let bytes_max = if status.is_success() {
            ANSWER_BYTES_MAX
        } else {
            ERROR_BYTES_MAX
        };
        let body = body::read(answer, bytes_max).await;
        if status.is_success() {
            return body.map_err(|error| match error {
                body::Unread::Broken(error) => unreached(error),
                other => Error::Nonsense(other.to_string()),
            });
        }
        Err(Error::Status {
            status: status.as_u16(),
            body: String::from_utf8_lossy(&body.unwrap_or_default()).into_owned(),
        })
    }
}

/// Whether a service says that it has no such path: it says of what it looked for, and did not
/// find, that in words of its own.
fn is_unknown_path(answer: &Result<Vec<u8>, Error>) -> bool {
    let Err(Error::Status { status, body }) = answer else {
        return false;
    };
    let errcode = serde_json::from_str::<Value>(body).ok();
    let errcode = errcode.as_ref().and_then(|body| body["errcode"].as_str());
    match status {
        404 => errcode.is_none_or(|code| code == "M_UNRECOGNIZED"),
        405 => true,
        _ => false,
    }
}

/// Without the address, which may hold the token.
fn unreached(error: reqwest::Error) -> Error {
    use std::error::Error as _;
    if error.is_timeout() {
        return Error::TimedOut;
    }
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    Error::Unreachable(text)
}
