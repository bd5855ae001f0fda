//! Calls to push gateways (specification, Push Gateway API). Users name them: they are called on the
//! guarded way that calls to peers take, and follow nobody elsewhere.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use url::Url;

use super::{Client, Error, body, client::chain};

/// The only path that a gateway has.
const PATH: &str = "/_matrix/push/v1/notify";
/// How long a gateway may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of its answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Why an address is none of a push gateway.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum NoGateway {
    /// Not HTTPS.
    #[error("the address of a push gateway begins with https://")]
    Scheme,
    /// Another path, or more than a path.
    #[error("the path of a push gateway is /_matrix/push/v1/notify")]
    Path,
    /// An address that we do not call.
    #[error("that address may not be called")]
    Host,
}

impl Client {
    /// Whether a push gateway may be at an address, as far as that can be told without asking for its
    /// name. `allow_http`: also without TLS.
    pub fn check_gateway(&self, url: &Url, allow_http: bool) -> Result<(), NoGateway> {
        if url.scheme() != "https" && !(allow_http && url.scheme() == "http") {
            return Err(NoGateway::Scheme);
        }
        if url.path() != PATH || url.query().is_some() || url.fragment().is_some() {
            return Err(NoGateway::Path);
        }
        // Credentials would stand in the database and in everybody's answer.
        let is_bare = url.username().is_empty() && url.password().is_none();
        let host = url.host_str().filter(|_| is_bare);
        if host.is_some_and(|host| self.0.transport.may_call_host(host)) {
            Ok(())
        } else {
            Err(NoGateway::Host)
        }
    }

    /// Hands a notice to a push gateway; what it answers.
    pub async fn notify_gateway(
        &self,
        url: &Url,
        allow_http: bool,
        notice: String,
    ) -> Result<Vec<u8>, Error> {
        let host = url.host_str().unwrap_or_default();
        // The configuration may have changed since the address was given.
        self.check_gateway(url, allow_http)
            .map_err(|_| Error::Unresolved(host.to_owned()))?;
        let request = self.0.transport.plain().post(url.clone());
        let request = request.header(CONTENT_TYPE, "application/json");
        let answer = request.body(notice).timeout(TIMEOUT).send().await;
        let unreachable = |reason| Error::Unreachable {
            server: host.to_owned(),
            reason,
        };
        let answer = answer.map_err(|error| unreachable(chain(&error)))?;
        let status = answer.status();
        if !status.is_success() {
            return Err(Error::Remote {
                status: status.as_u16(),
                errcode: "M_UNKNOWN".to_owned(),
                message: "the push gateway refuses the notice".to_owned(),
            });
        }
        let read = body::read(answer, ANSWER_BYTES_MAX).await;
        read.map_err(|error| unreachable(error.to_string()))
    }
}
