//! An application service: it remembers what it is told, and does what a test says.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{body::Body, extract::Request, response::Response};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    enc, eventually, free_port,
    server::{Folder, Server},
    user::User,
};

/// What it answers to requests other than transactions: status and JSON by method and path.
type Handler = Arc<dyn Fn(&str) -> (u16, Value) + Send + Sync>;

#[derive(Default)]
struct Shared {
    id: String,
    /// What it was sent: id and body of each transaction that it took.
    taken: Mutex<Vec<(String, Value)>>,
    /// Bodies of all transactions, taken or not.
    bodies: Mutex<HashMap<String, Value>>,
    /// Status with which transactions are refused.
    refusing: Mutex<Option<u16>>,
    handler: Mutex<Option<Handler>>,
    /// Paths that it was asked for, but for transactions.
    asked: Mutex<Vec<String>>,
    /// Whether it is from before the specification had versions.
    is_old: AtomicBool,
    /// Users that it makes when it is asked for them, and where.
    makes: Mutex<Option<String>>,
}

/// The service. It ends when it is dropped.
pub(crate) struct Appservice {
    folder: Folder,
    pub(crate) id: String,
    port: u16,
    shared: Arc<Shared>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Appservice {
    fn drop(&mut self) {
        self.down();
    }
}

impl Appservice {
    /// A service with users `@_ID_…` and aliases `#_ID_…` for itself alone, which does not listen
    /// yet. `more`: more of its registration.
    pub(crate) fn new(id: &str, more: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (folder, port) = (Folder::new(), free_port());
        let registration = format!(
            "id: {id}\n\
             url: http://127.0.0.1:{port}\n\
             as_token: as-token-{id}\n\
             hs_token: hs-token-{id}\n\
             sender_localpart: _{id}_bot\n\
             namespaces:\n\
             \x20 users: [{{exclusive: true, regex: '@_{id}_.*'}}]\n\
             \x20 aliases: [{{exclusive: true, regex: '#_{id}_.*'}}]\n\
             \x20 rooms: []\n\
             {more}"
        );
        std::fs::write(folder.0.join("registration.yaml"), registration).unwrap();
        let shared = Shared {
            id: id.to_owned(),
            ..Shared::default()
        };
        Self {
            folder,
            id: id.to_owned(),
            port,
            shared: Arc::new(shared),
            task: None,
        }
    }

    /// The same, and it listens.
    pub(crate) async fn start(id: &str, more: &str) -> Self {
        let mut service = Self::new(id, more);
        service.up().await;
        service
    }

    /// What a server is told of some services.
    pub(crate) fn config(services: &[&Self]) -> String {
        let mut config = "[registration]\nopen = true\n".to_owned();
        for service in services {
            let file = service.file();
            write!(config, "[[appservice]]\nregistration = \"{file}\"\n").unwrap();
        }
        config
    }

    /// Where its registration stands.
    pub(crate) fn file(&self) -> String {
        let file = self.folder.0.join("registration.yaml");
        file.display().to_string()
    }

    /// Changes the registration.
    pub(crate) fn edit(&self, from: &str, to: &str) {
        let file = self.file();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
    }

    /// Listens.
    pub(crate) async fn up(&mut self) {
        let socket = tokio::net::TcpListener::bind(("127.0.0.1", self.port)).await;
        let shared = self.shared.clone();
        let router = axum::Router::new().fallback(async move |request: Request| {
            let (status, body) = answer(&shared, request).await;
            Response::builder()
                .status(status)
                .body(Body::from(body.to_string()))
                .unwrap()
        });
        self.task = Some(tokio::spawn(async move {
            axum::serve(socket.unwrap(), router).await.unwrap();
        }));
    }

    /// Listens no more: connections are refused.
    pub(crate) fn down(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// Refuses transactions with a status, or takes them again.
    pub(crate) fn refuse(&self, status: Option<u16>) {
        *self.shared.refusing.lock().unwrap() = status;
    }

    /// Knows the old paths only, and looks for the token in the query.
    pub(crate) fn grow_old(&self) {
        self.shared.is_old.store(true, Ordering::Relaxed);
    }

    /// Answers requests other than transactions.
    pub(crate) fn handle(&self, handler: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static) {
        *self.shared.handler.lock().unwrap() = Some(Arc::new(handler));
    }

    /// Makes users on a server when it is asked for them.
    pub(crate) fn make_users_on(&self, server: &Server) {
        *self.shared.makes.lock().unwrap() = Some(server.url(""));
    }

    /// Paths that it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Whether it was sent anything, taken or not.
    pub(crate) fn was_tried(&self) -> bool {
        !self.shared.bodies.lock().unwrap().is_empty()
    }

    /// Everything that it took under a key of transactions, each transaction once.
    pub(crate) fn heard(&self, key: &str) -> Vec<Value> {
        let taken = self.shared.taken.lock().unwrap();
        let lists = taken.iter().filter_map(|(_, body)| body[key].as_array());
        lists.flatten().cloned().collect()
    }

    /// Parts of the transactions that it took which are no lists.
    pub(crate) fn parts(&self, key: &str) -> Vec<Value> {
        let taken = self.shared.taken.lock().unwrap();
        let parts = taken.iter().map(|(_, body)| body[key].clone());
        parts.filter(|part| !part.is_null()).collect()
    }

    /// Texts of messages that it heard, in order.
    pub(crate) fn texts(&self) -> Vec<String> {
        let events = self.heard("events").into_iter();
        events
            .filter_map(|event| event["content"]["body"].as_str().map(ToOwned::to_owned))
            .collect()
    }

    /// Waits until it has heard something that fits.
    pub(crate) async fn hears(
        &self,
        key: &str,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(what, async || {
            self.heard(key).into_iter().find(|it| fits(it))
        })
        .await
    }

    /// Its own user, as a client of a server.
    pub(crate) fn bot(&self, server: &Server) -> User {
        let id = format!("@_{}_bot:{}", self.id, server.name);
        User::with_token(&server.url(""), &id, &format!("as-token-{}", self.id))
    }

    /// One of its users, made by it.
    pub(crate) async fn ghost(&self, server: &Server, name: &str) -> User {
        let localpart = format!("_{}_{name}", self.id);
        let (status, body) = register(&server.url(""), &self.id, &localpart).await;
        assert_eq!(status, 200, "{body}");
        self.bot(server).masked(body["user_id"].as_str().unwrap())
    }
}

/// Makes a user in the name of a service.
pub(crate) async fn register(base: &str, service: &str, localpart: &str) -> (u16, Value) {
    let bot = User::with_token(base, "", &format!("as-token-{service}"));
    let body = json!({
        "type": "m.login.application_service",
        "username": localpart,
        "inhibit_login": true,
    });
    bot.call(Method::POST, "/register", Some(body)).await
}

async fn answer(shared: &Shared, request: Request) -> (u16, Value) {
    let (parts, body) = request.into_parts();
    let path = parts.uri.to_string();
    let is_old = shared.is_old.load(Ordering::Relaxed);
    if is_old && path.starts_with("/_matrix/app/v1/") {
        return (404, json!({ "errcode": "M_UNRECOGNIZED" }));
    }
    let shown = parts
        .headers
        .get("authorization")
        .map(|it| it.to_str().unwrap());
    if shown != Some(format!("Bearer hs-token-{}", shared.id).as_str()) {
        return (403, json!({ "errcode": "M_FORBIDDEN" }));
    }
    let body = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(txn_id) = path.strip_prefix("/_matrix/app/v1/transactions/") {
        return take(shared, txn_id, body);
    }
    if let Some(txn_id) = path.strip_prefix("/transactions/") {
        let token = format!("?access_token=hs-token-{}", shared.id);
        return take(shared, txn_id.strip_suffix(&token).unwrap(), body);
    }
    shared.asked.lock().unwrap().push(path.clone());
    let makes = shared.makes.lock().unwrap().clone();
    if let (Some(base), Some(user)) = (makes, path.strip_prefix("/_matrix/app/v1/users/")) {
        let user = percent_encoding::percent_decode_str(user).decode_utf8_lossy();
        let localpart = user[1..].split(':').next().unwrap();
        let (status, body) = register(&base, &shared.id, localpart).await;
        return (status, body);
    }
    let handler = shared.handler.lock().unwrap().clone();
    match handler {
        Some(handler) => handler(&path),
        None => (404, json!({ "errcode": "M_NOT_FOUND" })),
    }
}

fn take(shared: &Shared, txn_id: &str, body: Value) -> (u16, Value) {
    let mut bodies = shared.bodies.lock().unwrap();
    let first = bodies.entry(txn_id.to_owned()).or_insert(body.clone());
    assert_eq!(*first, body, "a transaction is never altered");
    if let Some(status) = *shared.refusing.lock().unwrap() {
        return (status, json!({}));
    }
    let mut taken = shared.taken.lock().unwrap();
    if !taken.iter().any(|(id, _)| id == txn_id) {
        taken.push((txn_id.to_owned(), body));
    }
    (200, json!({}))
}

/// A path with one of the ids that have to be encoded.
pub(crate) fn room_path(room: &str, rest: &str) -> String {
    format!("/rooms/{}/{rest}", enc(room))
}
