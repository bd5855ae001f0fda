//! A homeserver that does what a test says: it serves rooms of its own as an honest server does,
//! and answers, holds back or lies where the test sets a route.

pub(crate) mod calls;
pub(crate) mod event;
mod honest;
pub(crate) mod room;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{body::Body, extract::Request, response::Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::{event::Key, room::Room};
use super::{
    eventually, http,
    server::{Folder, Server},
    tls::Tls,
};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Segments of the path after the route's name, decoded.
    pub(crate) args: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Asked {
    /// All values of a parameter in the query.
    pub(crate) fn params(&self, name: &str) -> Vec<String> {
        let fitting = self.query.iter().filter(|(key, _)| key == name);
        fitting.map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn param(&self, name: &str) -> String {
        self.params(name).pop().unwrap_or_default()
    }
}

/// What the peer answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Status and JSON.
    Json(u16, Value),
    /// 200 and these bytes.
    Text(String),
    /// 200 and a beginning, and then the same again and again, as long as somebody reads.
    Endless(String, String),
}

impl Answer {
    pub(crate) fn ok(value: Value) -> Self {
        Self::Json(200, value)
    }

    pub(crate) fn refused(status: u16, errcode: &str) -> Self {
        Self::Json(
            status,
            json!({ "errcode": errcode, "error": "the script says so" }),
        )
    }
}

/// An answer to a request, given what an honest server would answer.
type Handler = Arc<dyn Fn(&Asked, Answer) -> Answer + Send + Sync>;

/// What requests and the test share.
pub(crate) struct Shared {
    key: Arc<Key>,
    rooms: Mutex<HashMap<String, Room>>,
    handlers: Mutex<HashMap<String, Handler>>,
    asked: Mutex<Vec<(String, Asked)>>,
    held: Mutex<HashMap<String, watch::Receiver<bool>>>,
    streamed: AtomicU64,
    omits_members: Mutex<bool>,
}

/// The peer. It ends when it is dropped.
pub(crate) struct Scripted {
    pub(crate) name: String,
    pub(crate) key: Arc<Key>,
    shared: Arc<Shared>,
    http: reqwest::Client,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A route that is held back until this is dropped.
pub(crate) struct Held {
    /// Its end is the signal.
    _sender: watch::Sender<bool>,
}

impl Scripted {
    pub(crate) async fn start(tls: &Tls) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = format!("localhost:{}", socket.local_addr().unwrap().port());
        let key = Arc::new(Key::new(&name, "scripted"));
        let shared = Arc::new(Shared {
            key: key.clone(),
            rooms: Mutex::default(),
            handlers: Mutex::default(),
            asked: Mutex::default(),
            held: Mutex::default(),
            streamed: AtomicU64::new(0),
            omits_members: Mutex::default(),
        });
        let task = tokio::spawn(serve(socket, tls.acceptor(), shared.clone()));
        Self {
            name,
            key,
            shared,
            http: http::client(),
            task,
        }
    }

    /// Answers nobody any more: connections are refused.
    pub(crate) fn die(&self) {
        self.task.abort();
    }

    /// The id of a user of this server.
    pub(crate) fn user(&self, name: &str) -> String {
        format!("@{name}:{}", self.name)
    }

    /// A new public room, which is served.
    pub(crate) fn room(&self, version: &str, creator: &str) -> Room {
        let room = Room::new(&self.key, version, creator);
        self.host(&room);
        room
    }

    /// Serves a room.
    pub(crate) fn host(&self, room: &Room) {
        let mut rooms = self.shared.rooms.lock().unwrap();
        rooms.insert(room.id.clone(), room.clone());
    }

    /// Answers a route (`send_join`, `state_ids`, …: what follows the version in the path; keys are
    /// `server`) otherwise than an honest server, whose answer the closure is given.
    pub(crate) fn route(
        &self,
        route: &str,
        handler: impl Fn(&Asked, Answer) -> Answer + Send + Sync + 'static,
    ) {
        let mut handlers = self.shared.handlers.lock().unwrap();
        handlers.insert(route.to_owned(), Arc::new(handler));
    }

    /// Answers a route always the same.
    pub(crate) fn route_to(&self, route: &str, answer: Answer) {
        self.route(route, move |_, _| answer.clone());
    }

    /// Answers a route honestly again.
    pub(crate) fn honest(&self, route: &str) {
        self.shared.handlers.lock().unwrap().remove(route);
    }

    /// Holds requests of a route back until what this returns is dropped.
    #[must_use]
    pub(crate) fn hold(&self, route: &str) -> Held {
        let (sender, receiver) = watch::channel(false);
        let mut held = self.shared.held.lock().unwrap();
        held.insert(route.to_owned(), receiver);
        Held { _sender: sender }
    }

    /// Leaves members out of answers to `send_join` where it is asked for.
    pub(crate) fn omit_members(&self, omits: bool) {
        *self.shared.omits_members.lock().unwrap() = omits;
    }

    /// Requests of a route so far.
    pub(crate) fn asked(&self, route: &str) -> Vec<Asked> {
        let asked = self.shared.asked.lock().unwrap();
        let fitting = asked.iter().filter(|(of, _)| of == route);
        fitting.map(|(_, asked)| asked.clone()).collect()
    }

    /// Waits for a request of a route that fits.
    pub(crate) async fn is_asked(&self, route: &str, fits: impl Fn(&Asked) -> bool) -> Asked {
        eventually(&format!("a request for {route}"), async || {
            // The newest first, and nothing is copied but what fits: crowds ask much.
            let asked = self.shared.asked.lock().unwrap();
            let mut fitting = asked.iter().rev().filter(|(of, _)| of == route);
            let found = fitting.find(|(_, asked)| fits(asked));
            found.map(|(_, asked)| asked.clone())
        })
        .await
    }

    /// Texts of messages in the transactions that it was sent after the first `skip`.
    pub(crate) fn heard(&self, skip: usize) -> Vec<String> {
        let asked = self.asked("send");
        let pdus = asked[skip..]
            .iter()
            .filter_map(|asked| asked.body["pdus"].as_array());
        let bodies = pdus
            .flatten()
            .filter_map(|pdu| pdu["content"]["body"].as_str());
        bodies.map(ToOwned::to_owned).collect()
    }

    /// Waits for a message of that text in a transaction.
    pub(crate) async fn hears(&self, text: &str) {
        self.is_asked("send", |asked| {
            let pdus = asked.body["pdus"].as_array();
            pdus.is_some_and(|pdus| pdus.iter().any(|pdu| pdu["content"]["body"] == text))
        })
        .await;
    }

    /// Bytes of endless answers that somebody took.
    pub(crate) fn streamed(&self) -> u64 {
        self.shared.streamed.load(Ordering::Relaxed)
    }
}

async fn serve(
    socket: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
    shared: Arc<Shared>,
) {
    // Dropped with this task, and its connections with it.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = socket.accept().await {
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = hyper::service::service_fn(move |request| {
                let shared = shared.clone();
                async move { Ok::<_, std::convert::Infallible>(answer(&shared, request).await) }
            });
            let stream = hyper_util::rt::TokioIo::new(stream);
            let connection = hyper::server::conn::http1::Builder::new();
            // Whoever calls may hang up at any point.
            let _ = connection.serve_connection(stream, service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(shared: &Arc<Shared>, request: hyper::Request<hyper::body::Incoming>) -> Response {
    let (route, asked) = read(request.map(Body::new)).await;
    shared
        .asked
        .lock()
        .unwrap()
        .push((route.clone(), asked.clone()));
    let held = shared.held.lock().unwrap().get(&route).cloned();
    if let Some(mut held) = held {
        // An error is the end of the sender: let go.
        while held.changed().await.is_ok() {}
    }
    let honest = shared.honest(&route, &asked);
    let handler = shared.handlers.lock().unwrap().get(&route).cloned();
    let answer = match handler {
        Some(handler) => handler(&asked, honest),
        None => honest,
    };
    let response = Response::builder().header("Content-Type", "application/json");
    match answer {
        Answer::Json(status, value) => {
            let body = Body::from(value.to_string());
            response.status(status).body(body)
        }
        Answer::Text(text) => response.body(Body::from(text)),
        Answer::Endless(first, again) => response.body(endless(shared.clone(), first, again)),
    }
    .unwrap()
}

async fn read(request: Request) -> (String, Asked) {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await;
    let decode = |text: &str| {
        let text = text.replace('+', "%2B");
        let pair = format!("x={text}");
        let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
        pairs.next().unwrap().1.into_owned()
    };
    // `/_matrix/federation/v1/ROUTE/…` and `/_matrix/key/v2/server`.
    let mut segments = parts.uri.path().split('/').skip(4);
    let route = segments.next().unwrap_or_default().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    let asked = Asked {
        method: parts.method.to_string(),
        args: segments.map(decode).collect(),
        query: url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        body: serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default(),
    };
    (route, asked)
}

fn endless(shared: Arc<Shared>, first: String, again: String) -> Body {
    let chunks = futures_util::stream::iter(
        std::iter::once(axum::body::Bytes::from(first))
            .chain(std::iter::repeat(axum::body::Bytes::from(again))),
    );
    Body::from_stream(futures_util::StreamExt::map(chunks, move |chunk| {
        let bytes = chunk.len() as u64;
        shared.streamed.fetch_add(bytes, Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(chunk)
    }))
}

/// A server of ours and a peer under one authority; the files go with the folder.
pub(crate) async fn server_and_peer() -> (Folder, Tls, Server, Scripted) {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with_tls(&tls).await;
    let peer = Scripted::start(&tls).await;
    (folder, tls, server, peer)
}
