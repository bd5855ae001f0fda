//! A user with a client that speaks HTTP, and remembers what it saw.

use std::sync::atomic::{AtomicU32, Ordering};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    enc, eventually,
    http::{self, Ask as _},
    server::Server,
};

static TXNS: AtomicU32 = AtomicU32::new(0);

/// Asks for an account.
pub(crate) async fn register(base: &str, wish: &Value) -> (u16, Value) {
    let url = format!("{base}/_matrix/client/v3/register");
    let request = http::client().post(url).body(wish.to_string());
    let answer = request.ask().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A logged-in user.
pub(crate) struct User {
    base: String,
    http: reqwest::Client,
    pub(crate) id: String,
    pub(crate) token: String,
    /// What is added to the query of every request.
    mask: Option<String>,
    pub(crate) since: Option<String>,
    /// Timeline events that syncs brought: (room, event).
    pub(crate) seen: Vec<(String, Value)>,
}

impl User {
    pub(crate) async fn register(base: &str, name: &str) -> Self {
        let mut body = json!({ "username": name, "password": format!("password of {name}") });
        let (_, first) = register(base, &body).await;
        // Terms are accepted where there are any.
        let stage = &first["flows"][0]["stages"][0];
        body["auth"] = json!({ "type": stage, "session": first["session"] });
        let (_, answer) = register(base, &body).await;
        let text = |key: &str| {
            answer[key]
                .as_str()
                .unwrap_or_else(|| panic!("no {key} in {answer}"))
        };
        Self::with_token(base, text("user_id"), text("access_token"))
    }

    /// Somebody with a token that was not got by a login.
    pub(crate) fn with_token(base: &str, id: &str, token: &str) -> Self {
        Self {
            base: base.to_owned(),
            http: http::client(),
            id: id.to_owned(),
            token: token.to_owned(),
            mask: None,
            since: None,
            seen: Vec::new(),
        }
    }

    /// The same as a user whom an application service speaks for; more of the query may follow the
    /// id.
    pub(crate) fn masked(&self, query: &str) -> Self {
        let mut masked = self.again();
        let id = query.split('&').next().unwrap();
        id.clone_into(&mut masked.id);
        masked.mask = Some(format!("user_id={query}"));
        masked
    }

    /// The same session once more; what it saw stays with the first.
    pub(crate) fn again(&self) -> Self {
        Self {
            base: self.base.clone(),
            http: self.http.clone(),
            id: self.id.clone(),
            token: self.token.clone(),
            mask: self.mask.clone(),
            since: None,
            seen: Vec::new(),
        }
    }

    /// The same session at another node of the server.
    pub(crate) fn at(&self, node: &Server) -> Self {
        Self {
            base: node.url(""),
            ..self.again()
        }
    }

    /// Where a path below `/_matrix/client/v3` is.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}/_matrix/client/v3{path}", self.base)
    }

    /// Status and body of any request below `/_matrix/client/v3`.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let mut url = self.url(path);
        if let Some(mask) = &self.mask {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(mask);
        }
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.ask().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Status of a request with a body that need not be JSON.
    pub(crate) async fn post_text(&self, path: &str, body: &str) -> u16 {
        let request = self.http.post(self.url(path)).bearer_auth(&self.token);
        let answer = request.body(body.to_owned()).ask().await.unwrap();
        answer.status().as_u16()
    }

    pub(crate) async fn create_room(&self, options: Value) -> String {
        let (status, body) = self.post("/createRoom", options).await;
        assert_eq!(status, 200, "{body}");
        body["room_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn join(&self, room: &str) {
        let (status, body) = self.post(&format!("/join/{}", enc(room)), json!({})).await;
        assert_eq!(status, 200, "{body}");
    }

    /// Joins with the help of a server.
    pub(crate) async fn join_via(&self, room: &str, via: &str) {
        let (status, body) = self.try_join_via(room, via).await;
        assert_eq!(status, 200, "{body}");
    }

    /// Status and body of a join with the help of a server.
    pub(crate) async fn try_join_via(&self, room: &str, via: &str) -> (u16, Value) {
        let path = format!("/join/{}?via={}", enc(room), enc(via));
        self.post(&path, json!({})).await
    }

    /// Sends a text message; returns its event id.
    pub(crate) async fn say(&self, room: &str, text: &str) -> String {
        let txn = format!("t{}", TXNS.fetch_add(1, Ordering::Relaxed));
        let path = format!("/rooms/{}/send/m.room.message/{txn}", enc(room));
        let (status, body) = self
            .put(&path, json!({ "msgtype": "m.text", "body": text }))
            .await;
        assert_eq!(status, 200, "{body}");
        body["event_id"].as_str().unwrap().to_owned()
    }

    /// One sync; timeline events are kept in `seen`.
    pub(crate) async fn sync(&mut self, timeout_ms: u32) -> Value {
        let since = self
            .since
            .as_ref()
            .map(|since| format!("&since={since}"))
            .unwrap_or_default();
        let (status, body) = self
            .get(&format!("/sync?timeout={timeout_ms}{since}"))
            .await;
        assert_eq!(status, 200, "{body}");
        self.since = Some(body["next_batch"].as_str().unwrap().to_owned());
        for (room, part) in body["rooms"]["join"].as_object().into_iter().flatten() {
            for event in part["timeline"]["events"].as_array().into_iter().flatten() {
                self.seen.push((room.clone(), event.clone()));
            }
        }
        body
    }

    /// Syncs until an event that fits has come.
    pub(crate) async fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let this = tokio::sync::Mutex::new(self);
        eventually(what, async || {
            let mut user = this.lock().await;
            if let Some((_, event)) = user.seen.iter().find(|(_, event)| fits(event)) {
                return Some(event.clone());
            }
            user.sync(1_000).await;
            None
        })
        .await
    }

    /// Syncs until a message with that text has come.
    pub(crate) async fn hears(&mut self, text: &str) -> Value {
        self.wait_for(text, |event| event["content"]["body"] == text)
            .await
    }

    /// Syncs until an invitation to a room has come.
    pub(crate) async fn is_invited(&mut self, room: &str) -> Value {
        let this = tokio::sync::Mutex::new(self);
        eventually("an invitation", async || {
            let body = this.lock().await.sync(1_000).await;
            body["rooms"]["invite"].get(room).cloned()
        })
        .await
    }

    /// Texts of all messages of a room, oldest first, by paging back.
    pub(crate) async fn history(&self, room: &str) -> Vec<String> {
        let mut texts = Vec::new();
        let mut from = String::new();
        loop {
            let path = format!("/rooms/{}/messages?dir=b&limit=50{from}", enc(room));
            let (status, page) = self.get(&path).await;
            assert_eq!(status, 200, "{page}");
            for event in page["chunk"].as_array().unwrap() {
                texts.extend(event["content"]["body"].as_str().map(ToOwned::to_owned));
            }
            match page["end"].as_str() {
                Some(end) => from = format!("&from={end}"),
                None => break,
            }
        }
        texts.reverse();
        texts
    }
}
