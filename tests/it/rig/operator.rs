//! An administrator's tool.

use reqwest::Method;
use serde_json::Value;

use super::{
    http::{self, Ask as _},
    server::Server,
};
use crate::client::account::register_with_secret;

/// An administrator's tool.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) base: String,
    pub(crate) token: String,
    pub(crate) id: String,
}

impl Operator {
    pub(crate) async fn of(server: &Server) -> Self {
        let (status, body) = register_with_secret(server, "root", "test secret").await;
        assert_eq!(status, 200, "{body}");
        Self {
            base: server.url("/_synapse/admin"),
            token: body["access_token"].as_str().unwrap().to_owned(),
            id: body["user_id"].as_str().unwrap().to_owned(),
        }
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        call(&self.base, &self.token, method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

pub(crate) async fn call(
    base: &str,
    token: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let http = http::client();
    let mut request = http
        .request(method, format!("{base}{path}"))
        .bearer_auth(token);
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let answer = request.ask().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}
