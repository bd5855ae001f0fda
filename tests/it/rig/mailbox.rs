//! A mail relay that nobody here wrote, and who reads what it is given.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    eventually, free_port, http::Ask as _, peer::python, server::Folder, server::Server, tls::Tls,
    user::User,
};

/// What a server needs that is to send mails here; more of `[email]` may follow.
pub(crate) fn config(mailbox: &Mailbox) -> String {
    format!(
        "[registration]\nopen = true\nshared_secret = \"test secret\"\n\
         [well_known]\nclient = \"https://matrix.amt.example/\"\n\
         [email]\nsmtp_host = \"127.0.0.1\"\nsmtp_port = {}\ntls = \"none\"\n\
         from = \"Amt Müsterstadt <matrix@amt.example>\"\napp_name = \"Bote\"\n",
        mailbox.port
    )
}

/// The relay.
pub(crate) struct Mailbox {
    process: Option<Child>,
    folder: Folder,
    pub(crate) port: u16,
    arguments: Vec<String>,
}

impl Mailbox {
    /// One that takes everything.
    pub(crate) fn start() -> Self {
        Self::with(Vec::new())
    }

    /// One that asks for TLS, and for the name `matrix` with the password `geheim`.
    pub(crate) fn with_tls(tls: &Tls) -> Self {
        let certificate = tls.certificate.display().to_string();
        let key = tls.key.display().to_string();
        Self::with(vec![certificate, key, "matrix".into(), "geheim".into()])
    }

    fn with(arguments: Vec<String>) -> Self {
        let mut mailbox = Self {
            process: None,
            folder: Folder::new(),
            port: free_port(),
            arguments,
        };
        mailbox.go_on();
        mailbox
    }

    /// Starts, where it was before.
    pub(crate) fn go_on(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/rig/smtp.py");
        let mut process = Command::new(python())
            .arg(script)
            .arg(self.port.to_string())
            .arg(&self.folder.0)
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = process.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the relay did not start");
        self.process = Some(process);
    }

    /// Ends; its mails stay.
    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Answers recipients with that.
    pub(crate) fn refuse(&self, answer: &str) {
        std::fs::write(self.folder.0.join("refuse"), answer).unwrap();
    }

    /// Mails for an address, in order.
    pub(crate) fn mails(&self, address: &str) -> Vec<Value> {
        let entries = std::fs::read_dir(&self.folder.0).unwrap().flatten();
        let paths = entries.map(|entry| entry.path());
        let mut paths: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|it| it == "json"))
            .collect();
        // In the order in which they came, across restarts of the relay.
        paths.sort_by_key(|path| path.metadata().unwrap().modified().unwrap());
        let mails = paths.into_iter().map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()
        });
        mails.filter(|mail| mail["to"][0] == address).collect()
    }

    /// Waits for that many mails for an address; the last of them.
    pub(crate) async fn get(&self, address: &str, count: usize) -> Value {
        eventually(&format!("mail {count} for {address}"), async || {
            let mut mails = self.mails(address);
            (mails.len() >= count).then(|| mails.swap_remove(count - 1))
        })
        .await
    }

    /// Has a user prove an address and add it to the account, with the password that `User::register`
    /// gives.
    pub(crate) async fn add(&self, server: &Server, user: &User, address: &str) {
        let before = self.mails(address).len();
        let asked = json!({ "client_secret": "secret", "email": address, "send_attempt": 1 });
        let (status, body) = user.post("/account/3pid/email/requestToken", asked).await;
        assert_eq!(status, 200, "{body}");
        let mail = self.get(address, before + 1).await;
        assert_eq!(submit(server, &link(&mail)).await.0, 200);
        let add = json!({
            "sid": body["sid"], "client_secret": "secret", "auth": password(user),
        });
        let (status, body) = user.post("/account/3pid/add", add).await;
        assert_eq!((status, &body), (200, &json!({})));
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The password of a user, for user-interactive authentication.
pub(crate) fn password(user: &User) -> Value {
    let name = user.id[1..].split(':').next().unwrap();
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user.id },
        "password": format!("password of {name}"),
    })
}

/// The link in a mail.
pub(crate) fn link(mail: &Value) -> String {
    let text = mail["text"].as_str().unwrap();
    let mut words = text.split_whitespace();
    let link = words.find(|word| word.starts_with("https://matrix.amt.example/_matrix/"));
    let link = link.unwrap_or_else(|| panic!("no link in {text}"));
    link.to_owned()
}

/// Path and query of a link, at a server.
pub(crate) fn at(server: &Server, link: &str) -> String {
    server.url(link.strip_prefix("https://matrix.amt.example").unwrap())
}

/// Presses the button on the page that a link leads to: status, where to, and the page.
pub(crate) async fn submit(server: &Server, link: &str) -> (u16, Option<String>, String) {
    let (place, query) = link.split_once('?').unwrap();
    let http = reqwest::Client::builder().no_proxy();
    let http = http
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let request = http.post(at(server, place));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(query.to_owned()).ask().await.unwrap();
    let next = answer.headers().get("location");
    let next = next.map(|next| next.to_str().unwrap().to_owned());
    (answer.status().as_u16(), next, answer.text().await.unwrap())
}
