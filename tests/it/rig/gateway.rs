//! A push gateway: it remembers what it is told, and answers as a test says.

use std::sync::{Arc, Mutex};

use axum::{Json, body::Body, extract::Request, response::Response};
use serde_json::{Value, json};

use super::{eventually, free_port, user::User};

/// What a server needs that is to call gateways here.
pub(crate) const CONFIG: &str = "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
    [push]\nallow_http = true\n";

#[derive(Debug, Default)]
struct Shared {
    /// Notices that it took.
    taken: Mutex<Vec<Value>>,
    /// Status with which it refuses notices, and how often it did.
    refusing: Mutex<(Option<u16>, usize)>,
    /// Push keys that it does not know any more.
    rejected: Mutex<Vec<String>>,
}

/// The gateway. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    port: u16,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let port = free_port();
        let shared = Arc::new(Shared::default());
        let socket = tokio::net::TcpListener::bind(("127.0.0.1", port)).await;
        let known = shared.clone();
        let router = axum::Router::new().fallback(async move |request: Request| {
            let (status, body) = answer(&known, request).await;
            let answer = Response::builder().status(status);
            answer.body(Body::from(body.to_string())).unwrap()
        });
        let task = tokio::spawn(async move {
            axum::serve(socket.unwrap(), router).await.unwrap();
        });
        Self { port, shared, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/_matrix/push/v1/notify", self.port)
    }

    /// A pusher for a push key, as clients set it.
    pub(crate) fn pusher(&self, pushkey: &str) -> Value {
        json!({
            "kind": "http",
            "app_id": "de.amt.bote",
            "pushkey": pushkey,
            "app_display_name": "Bote",
            "device_display_name": "Telefon",
            "lang": "de",
            "data": { "url": self.url() },
        })
    }

    /// Has a user notified here.
    pub(crate) async fn serve(&self, user: &User, pushkey: &str) {
        set(user, self.pusher(pushkey)).await;
    }

    /// Refuses notices with a status, or takes them again.
    pub(crate) fn refuse(&self, status: Option<u16>) {
        *self.shared.refusing.lock().unwrap() = (status, 0);
    }

    /// How often it has refused since then.
    pub(crate) fn refused(&self) -> usize {
        self.shared.refusing.lock().unwrap().1
    }

    /// Does not know a push key any more.
    pub(crate) fn reject(&self, pushkey: &str) {
        let mut rejected = self.shared.rejected.lock().unwrap();
        rejected.push(pushkey.to_owned());
    }

    /// Notices for a push key that it took.
    pub(crate) fn notices(&self, pushkey: &str) -> Vec<Value> {
        let taken = self.shared.taken.lock().unwrap();
        let its = taken.iter();
        let its = its.filter(|notice| notice["devices"][0]["pushkey"] == pushkey);
        its.cloned().collect()
    }

    /// Ids of the events that it was told of.
    pub(crate) fn events(&self, pushkey: &str) -> Vec<String> {
        let notices = self.notices(pushkey).into_iter();
        notices
            .filter_map(|notice| notice["event_id"].as_str().map(ToOwned::to_owned))
            .collect()
    }

    /// Waits until it is told of an event.
    pub(crate) async fn hears(&self, pushkey: &str, event: &str) -> Value {
        let what = format!("a notice of {event} for {pushkey}");
        eventually(&what, async || {
            let notices = self.notices(pushkey).into_iter();
            let mut its = notices.filter(|notice| notice["event_id"] == event);
            its.next()
        })
        .await
    }

    /// Waits until the last notice is of a count alone, and of that one.
    pub(crate) async fn counts(&self, pushkey: &str, unread: u32) {
        let what = format!("a count of {unread} for {pushkey}");
        eventually(&what, async || {
            let last = self.notices(pushkey).pop()?;
            (last["counts"]["unread"] == unread && last.get("event_id").is_none()).then_some(())
        })
        .await;
    }
}

/// Sets a pusher.
pub(crate) async fn set(user: &User, pusher: Value) {
    let (status, body) = user.post("/pushers/set", pusher).await;
    assert_eq!((status, &body), (200, &json!({})));
}

async fn answer(shared: &Shared, request: Request) -> (u16, Value) {
    assert_eq!(request.uri().path(), "/_matrix/push/v1/notify");
    assert_eq!(request.method(), "POST");
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    let Json(body): Json<Value> = Json::from_bytes(&body.unwrap()).unwrap();
    let notice = body["notification"].clone();
    {
        let mut refusing = shared.refusing.lock().unwrap();
        if let Some(status) = refusing.0 {
            refusing.1 += 1;
            return (status, json!({}));
        }
    }
    let key = notice["devices"][0]["pushkey"].as_str().unwrap().to_owned();
    let rejected = shared.rejected.lock().unwrap().clone();
    if rejected.contains(&key) {
        return (200, json!({ "rejected": [key] }));
    }
    shared.taken.lock().unwrap().push(notice);
    (200, json!({ "rejected": [] }))
}
