//! An object store that speaks S3 (moto), as a process of its own.

use std::process::{Child, Command, Stdio};

use super::{eventually, free_port, http, peer::python};

/// The store, with one bucket. It ends when it is dropped.
pub(crate) struct Store {
    process: Child,
    port: u16,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Store {
    pub(crate) async fn start() -> Self {
        let port = free_port();
        let process = Command::new(python())
            .args([
                "-m",
                "moto.server",
                "-H",
                "127.0.0.1",
                "-p",
                &port.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let store = Self { process, port };
        eventually("the store to serve", async || {
            let made = http::client().put(store.url("")).body("");
            let made = http::Ask::ask(made).await.ok()?;
            made.status().is_success().then_some(())
        })
        .await;
        store
    }

    fn url(&self, query: &str) -> String {
        format!("http://127.0.0.1:{}/bote{query}", self.port)
    }

    /// What a server needs that keeps its files here.
    pub(crate) fn config(&self) -> String {
        format!(
            "[media.s3]\nendpoint = \"http://127.0.0.1:{}\"\nbucket = \"bote\"\nprefix = \"media\"\n\
             access_key_id = \"a\"\nsecret_access_key = \"b\"\n",
            self.port
        )
    }

    /// Keys of all objects.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let listed = http::client().get(self.url("?list-type=2"));
        let listed = http::Ask::ask(listed).await.unwrap().text().await.unwrap();
        let keys = listed.split("<Key>").skip(1);
        keys.map(|rest| rest.split('<').next().unwrap().to_owned())
            .collect()
    }
}
