//! Calls to identity providers (OpenID Connect). Operators name them, and what they say names more
//! addresses: all are called on the guarded way that calls to peers take, and redirects are not
//! followed.

use std::time::Duration;

use http::header::ACCEPT;
use serde_json::Value;
use url::Url;

use super::{Client, Error, body, client::chain};

/// How long a provider may take; somebody looks at an empty page meanwhile.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of an answer: documents and tokens have a few thousand.
const ANSWER_BYTES_MAX: usize = 256 << 10;

impl Client {
    /// A JSON document of a provider, for whoever has `bearer` where that is given.
    pub async fn get_from_provider(&self, url: &Url, bearer: Option<&str>) -> Result<Value, Error> {
        let request = self.0.transport.plain().get(url.clone());
        let request = match bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let (status, answer) = self.ask_provider(url, request).await?;
        if status != 200 {
            return Err(refusal(status, answer.as_ref()));
        }
        answer.ok_or_else(|| nonsense(url))
    }

    /// What a provider answers to a form; `login`: name and password in the head of the request.
    pub async fn post_to_provider(
        &self,
        url: &Url,
        login: Option<(&str, &str)>,
        form: &[(&str, &str)],
    ) -> Result<Value, Error> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = self.0.transport.plain().post(url.clone());
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        let request = match login {
            Some((name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        };
        let (status, answer) = self.ask_provider(url, request).await?;
        if status != 200 {
            return Err(refusal(status, answer.as_ref()));
        }
        answer.ok_or_else(|| nonsense(url))
    }

    /// Status and body, where that is JSON.
    async fn ask_provider(
        &self,
        url: &Url,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, Option<Value>), Error> {
        let host = url.host_str().unwrap_or_default();
        if !self.0.transport.may_call_host(host) {
            return Err(Error::Unresolved(host.to_owned()));
        }
        let unreachable = |reason| Error::Unreachable {
            server: host.to_owned(),
            reason,
        };
        let request = request.header(ACCEPT, "application/json").timeout(TIMEOUT);
        let answer = request.send().await;
        let answer = answer.map_err(|error| unreachable(chain(&error.without_url())))?;
        let status = answer.status().as_u16();
        let body = body::read(answer, ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error| unreachable(error.to_string()))?;
        Ok((status, serde_json::from_slice(&body).ok()))
    }
}

/// An error as OAuth tells it (RFC 6749, section 5.2); its code has few characters.
fn refusal(status: u16, answer: Option<&Value>) -> Error {
    let code = answer.and_then(|answer| answer["error"].as_str());
    let is_code = |code: &&str| {
        code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    Error::Remote {
        status,
        errcode: code.filter(is_code).unwrap_or("-").to_owned(),
        message: "the identity provider refuses".to_owned(),
    }
}

fn nonsense(url: &Url) -> Error {
    Error::Nonsense {
        server: url.host_str().unwrap_or_default().to_owned(),
        reason: "no JSON".to_owned(),
    }
}
