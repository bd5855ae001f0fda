//! One signed request to a peer.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use ruma::{
    ServerName,
    api::{
        IncomingResponseExt, OutgoingRequest, OutgoingRequestExt,
        federation::authentication::{ServerSignatures, XMatrixSigningInput},
        path_builder::SinglePath,
    },
};

use super::{
    Error,
    body::{Budget, Unread},
    gate::{Gate, Way},
    guard::{Guard, GuardedDns},
    keys::PeerKeys,
    resolve::{Destination, Resolver},
    transport::Transport,
    turns::{Turn, Turns},
    vouched::Vouched,
    web::Web,
};
use crate::{clock::now_ms, config::Config, event::keys::SigningKeys, storage::Db};

/// Time for an ordinary request.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for an answer that may be large.
const TIMEOUT_LARGE: Duration = Duration::from_mins(2);
/// Bytes of an ordinary answer.
const BODY_MAX: usize = 20 << 20;
/// Bytes of the state of a room.
const BODY_LARGE_MAX: usize = 300 << 20;
/// Bytes of an error that are read.
const ERROR_MAX: usize = 64 << 10;
/// First pause after a failure.
const PAUSE_FIRST_MS: i64 = 1_000;
/// Longest pause between tries that requests of users wait for.
const PAUSE_LONGEST_MS: i64 = 60_000;

/// Calls peers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    gate: Gate,
    pub(super) transport: Transport,
    resolver: Resolver,
    pub(super) web: Web,
    own: Arc<SigningKeys>,
    budget: Budget,
    /// (not before, pause) by server that failed lately.
    resting: Cache<String, (i64, i64)>,
    peer_keys: PeerKeys,
    vouched: Vouched,
    turns: Turns,
}

impl Client {
    /// Sets up TLS and HTTP.
    pub fn new(config: &Config, db: Db, own: Arc<SigningKeys>) -> Result<Self, Error> {
        let guard = Guard::new(&config.outbound.allow_ip_ranges);
        let dns = GuardedDns::new(guard.clone());
        let gate = Gate::new(own.server_name.clone(), &config.federation, db.clone());
        let transport = Transport::new(&config.outbound, (guard, dns.clone()), gate.clone())?;
        let resolver = Resolver::new(transport.clone(), dns);
        let web = Web::new(config, gate.clone())?;
        Ok(Self(Arc::new(Inner {
            gate,
            transport,
            resolver,
            web,
            peer_keys: PeerKeys::new(db, own.clone()),
            vouched: Vouched::new(),
            turns: Turns::default(),
            own,
            budget: Budget::new(),
            resting: Cache::builder()
                .max_capacity(100_000)
                .time_to_live(Duration::from_hours(1))
                .build(),
        })))
    }

    /// Takes `[federation]` and `[outbound]` of a configuration that was read again.
    pub fn reload(&self, config: &Config) -> Result<(), Error> {
        self.0.transport.reload(&config.outbound)?;
        self.0.web.reload(config)?;
        self.0.gate.configure(&config.federation);
        Ok(())
    }

    /// Which servers we have to do with.
    pub fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// Keys of peers, fetched with this client.
    pub fn keys(&self) -> Keys<'_> {
        Keys(self)
    }

    /// Waits for the turn to ask a server, where questions of one kind must not be many at once.
    pub async fn turn(&self, server: &ServerName) -> Turn {
        self.0.turns.take(server).await
    }

    /// A request whose answer is of ordinary size.
    pub async fn request<R>(
        &self,
        server: &ServerName,
        request: R,
    ) -> Result<R::IncomingResponse, Error>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath>,
    {
        self.rested(server)?;
        self.send(server, request, (TIMEOUT, BODY_MAX)).await
    }

    /// A request whose answer may hold the state of a large room.
    pub async fn request_large<R>(
        &self,
        server: &ServerName,
        request: R,
    ) -> Result<R::IncomingResponse, Error>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath>,
    {
        self.rested(server)?;
        self.send(server, request, (TIMEOUT_LARGE, BODY_LARGE_MAX))
            .await
    }

    /// A request that does not ask whether the peer failed lately: its sender keeps time itself.
    pub async fn request_now<R>(
        &self,
        server: &ServerName,
        request: R,
    ) -> Result<R::IncomingResponse, Error>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath>,
    {
        self.send(server, request, (TIMEOUT_LARGE, BODY_MAX)).await
    }

    /// The peer spoke to us: it lives.
    pub fn alive(&self, server: &ServerName) {
        self.0.resting.invalidate(server.as_str());
    }

    /// Where a server answers that we have to do with. Every request to a peer comes by here.
    async fn destination(&self, server: &ServerName) -> Result<Destination, Error> {
        self.0.gate.check(server, Way::Outbound)?;
        let found = self.0.resolver.resolve(server).await;
        found.inspect_err(|_| self.failed(server))
    }

    fn rested(&self, server: &ServerName) -> Result<(), Error> {
        let now = now_ms();
        match self.0.resting.get(server.as_str()) {
            Some((until, _)) if until > now => Err(Error::BackingOff {
                server: server.to_string(),
                seconds: (until - now) / 1_000 + 1,
            }),
            _ => Ok(()),
        }
    }

    fn failed(&self, server: &ServerName) {
        let pause = self
            .0
            .resting
            .get(server.as_str())
            .map_or(PAUSE_FIRST_MS, |(_, pause)| {
                (pause * 2).min(PAUSE_LONGEST_MS)
            });
        self.0
            .resting
            .insert(server.to_string(), (now_ms() + pause, pause));
    }

    async fn send<R>(
        &self,
        server: &ServerName,
        request: R,
        (timeout, body_max): (Duration, usize),
    ) -> Result<R::IncomingResponse, Error>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath>,
    {
        let (request, host) = self.sign(server, request).await?;
        let answer = self
            .exchange(server, request, &host, timeout, body_max)
            .await?;
        let (parts, body) = answer.into_parts();
        let view = http::Response::from_parts(parts, body.as_slice());
        R::IncomingResponse::try_from_http_response(view).map_err(|error| nonsense(server, &error))
    }

    /// A request as it goes out, and its `Host`.
    async fn sign<R>(
        &self,
        server: &ServerName,
        request: R,
    ) -> Result<(http::Request<Vec<u8>>, String), Error>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath>,
    {
        if server == self.0.own.server_name {
            return Err(Error::Request("a server does not call itself".to_owned()));
        }
        let destination = self.destination(server).await?;
        let base = format!("https://{}:{}", destination.host, destination.port);
        let pair = self.0.own.pair();
        let input =
            XMatrixSigningInput::new(self.0.own.server_name.clone(), server.to_owned(), &pair);
        let request: http::Request<Vec<u8>> = request
            .try_into_http_request(&base, input, ())
            .map_err(|error| Error::Request(error.to_string()))?;
        Ok((request, destination.header))
    }

    /// A signed request whose answer the caller reads piece by piece.
    pub async fn open<R>(
        &self,
        server: &ServerName,
        request: R,
        timeout: Duration,
    ) -> Result<reqwest::Response, Error>
    where
        R: OutgoingRequest<Authentication = ServerSignatures, PathBuilder = SinglePath>,
    {
        self.rested(server)?;
        let (request, host) = self.sign(server, request).await?;
        let answer = self.begin(server, request, &host, timeout).await?;
        self.accept(server, answer).await
    }

    /// An unsigned `GET` at a peer whose answer the caller reads piece by piece.
    pub async fn open_path(
        &self,
        server: &ServerName,
        path: &str,
        timeout: Duration,
    ) -> Result<reqwest::Response, Error> {
        self.rested(server)?;
        let destination = self.destination(server).await?;
        let url = format!("https://{}:{}{path}", destination.host, destination.port);
        let request = http::Request::get(url)
            .body(Vec::new())
            .map_err(|error| Error::Request(error.to_string()))?;
        let answer = self
            .begin(server, request, &destination.header, timeout)
            .await?;
        self.accept(server, answer).await
    }

    /// A `GET` of any address that may be called, redirects followed; the caller reads the answer
    /// piece by piece.
    pub async fn open_url(&self, url: &str, timeout: Duration) -> Result<reqwest::Response, Error> {
        let url = url::Url::parse(url).map_err(|error| Error::Request(error.to_string()))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        if self.0.gate.denies_host(&host) || !self.0.transport.may_call(&url) {
            return Err(Error::Unresolved(host));
        }
        let http = self.0.transport.following();
        let sent = http.get(url).timeout(timeout).send().await;
        let answer = sent.map_err(|error| Error::Unreachable {
            server: host,
            reason: chain(&error),
        })?;
        let status = answer.status();
        if status.is_success() {
            Ok(answer)
        } else {
            Err(remote(status, b""))
        }
    }

    /// An answer that is no error; else the error in it.
    async fn accept(
        &self,
        server: &ServerName,
        mut answer: reqwest::Response,
    ) -> Result<reqwest::Response, Error> {
        let status = answer.status();
        self.note(server, status);
        if status.is_success() {
            return Ok(answer);
        }
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await
            && body.len() + chunk.len() <= ERROR_MAX
        {
            body.extend_from_slice(&chunk);
        }
        Err(remote(status, &body))
    }

    fn note(&self, server: &ServerName, status: http::StatusCode) {
        let patient = [
            http::StatusCode::NOT_IMPLEMENTED,
            // The media is not uploaded yet: the peer is well.
            http::StatusCode::GATEWAY_TIMEOUT,
        ];
        if status.is_server_error() && !patient.contains(&status) {
            self.failed(server);
        } else {
            self.alive(server);
        }
    }

    async fn begin(
        &self,
        server: &ServerName,
        request: http::Request<Vec<u8>>,
        host: &str,
        timeout: Duration,
    ) -> Result<reqwest::Response, Error> {
        let mut request = reqwest::Request::try_from(request)
            .map_err(|error| Error::Request(error.to_string()))?;
        *request.timeout_mut() = Some(timeout);
        if let Ok(host) = host.parse() {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let sent = self.0.transport.plain().execute(request).await;
        sent.map_err(|error| self.unreachable(server, &error))
    }

    fn unreachable(&self, server: &ServerName, error: &reqwest::Error) -> Error {
        self.failed(server);
        Error::Unreachable {
            server: server.to_string(),
            reason: chain(error),
        }
    }

    /// Sends, and reads the answer up to its bound.
    pub(super) async fn exchange(
        &self,
        server: &ServerName,
        request: http::Request<Vec<u8>>,
        host: &str,
        timeout: Duration,
        body_max: usize,
    ) -> Result<http::Response<Vec<u8>>, Error> {
        let mut answer = self.begin(server, request, host, timeout).await?;
        let status = answer.status();
        let read = self.0.budget.read(&mut answer, body_max).await;
        let (body, share) = read.map_err(|why| match why {
            Unread::Broken(error) => self.unreachable(server, &error),
            why => nonsense(server, &why),
        })?;
        self.note(server, status);
        if !status.is_success() {
            return Err(remote(status, &body));
        }
        let mut response = http::Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = answer.headers().clone();
        // Kept until whoever asked has parsed the body and drops the answer.
        if let Some(share) = share {
            response.extensions_mut().insert(share);
        }
        Ok(response)
    }

    /// An unsigned `GET` of a JSON document, for keys.
    pub(super) async fn get_json(&self, server: &ServerName, path: &str) -> Result<Vec<u8>, Error> {
        let request = http::Request::get(path).body(Vec::new());
        self.json(server, request, 1 << 20).await
    }

    /// An unsigned `POST` of a JSON document, for keys.
    pub(super) async fn post_json(
        &self,
        server: &ServerName,
        path: &str,
        body: String,
        body_max: usize,
    ) -> Result<Vec<u8>, Error> {
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.into_bytes());
        self.json(server, request, body_max).await
    }

    async fn json(
        &self,
        server: &ServerName,
        request: http::Result<http::Request<Vec<u8>>>,
        body_max: usize,
    ) -> Result<Vec<u8>, Error> {
        self.rested(server)?;
        let destination = self.destination(server).await?;
        let bad = |error: &dyn std::fmt::Display| Error::Request(error.to_string());
        let mut request = request.map_err(|error| bad(&error))?;
        let Destination { host, port, .. } = &destination;
        let url = format!("https://{host}:{port}{}", request.uri());
        *request.uri_mut() = url
            .parse()
            .map_err(|error: http::uri::InvalidUri| bad(&error))?;
        let answer = self
            .exchange(
                server,
                request,
                &destination.header,
                Duration::from_secs(10),
                body_max,
            )
            .await?;
        Ok(answer.into_body())
    }
}

/// Keys of peers with the client that fetches them.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a>(&'a Client);

impl Keys<'_> {
    /// Keys for verifying: those needed, by server, as far as they can be had.
    pub async fn known(
        &self,
        needed: &std::collections::BTreeMap<
            ruma::OwnedServerName,
            std::collections::BTreeSet<String>,
        >,
    ) -> super::keys::KnownKeys {
        self.0.0.peer_keys.map(self.0, needed).await
    }

    /// The same for events that a peer gives: where we have nothing to do with the server of a
    /// key, that peer may vouch for it.
    pub async fn known_through(
        &self,
        needed: &std::collections::BTreeMap<
            ruma::OwnedServerName,
            std::collections::BTreeSet<String>,
        >,
        via: &ServerName,
    ) -> super::keys::KnownKeys {
        let mut known = self.known(needed).await;
        let vouched = &self.0.0.vouched;
        vouched.complete(self.0, needed, via, &mut known).await;
        known
    }

    /// The newest key document of a peer as it signed it, good until `until` if it can be had.
    pub async fn document(
        &self,
        server: &ruma::OwnedServerName,
        until: i64,
    ) -> Result<Option<String>, Error> {
        self.0.0.peer_keys.document(self.0, server, until).await
    }
}

fn nonsense(server: &ServerName, reason: &dyn std::fmt::Display) -> Error {
    Error::Nonsense {
        server: server.to_string(),
        reason: reason.to_string(),
    }
}

fn remote(status: http::StatusCode, body: &[u8]) -> Error {
    #[derive(Default, serde::Deserialize)]
    struct Body {
        #[serde(default)]
        errcode: String,
        #[serde(default)]
        error: String,
    }
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let cut = |text: String| text.chars().take(300).collect();
    Error::Remote {
        status: status.as_u16(),
        errcode: cut(body.errcode),
        message: cut(body.error),
    }
}

/// An error with its causes: reqwest's own text hides them.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
