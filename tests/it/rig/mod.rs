//! What tests stand on: servers, users, a certificate authority.

pub(crate) mod appservice;
pub(crate) mod browser;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod identity;
pub(crate) mod idp;
pub(crate) mod links;
pub(crate) mod mailbox;
pub(crate) mod oauth;
mod openapi;
pub(crate) mod operator;
pub(crate) mod pages;
pub(crate) mod peer;
pub(crate) mod proxy;
pub(crate) mod scripted;
pub(crate) mod server;
pub(crate) mod store;
mod template;
pub(crate) mod tls;
pub(crate) mod user;

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

/// How long anything that has to happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, attempt: impl AsyncFnMut() -> Option<T>) -> T {
    within_patience(attempt)
        .await
        .unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// The same for those who want to say themselves what did not happen.
pub(crate) async fn within_patience<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = attempt().await {
            return Some(found);
        }
        if tokio::time::Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A port of 127.0.0.1 that nobody has now, and nobody else was given: the system may name one twice
/// before it is taken.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// A path segment.
pub(crate) fn enc(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

/// Numbers that look random and come again.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % sides
    }

    pub(crate) fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}
