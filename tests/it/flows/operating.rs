//! What an administrator meets: certificates, databases, second starts.

use std::io::{Read, Write};

use serde_json::json;

use crate::rig::{
    eventually,
    http::Ask as _,
    server::{Folder, Server},
    tls::Tls,
};

fn client(tls: &Tls) -> reqwest::ClientBuilder {
    let ca = std::fs::read(&tls.ca).unwrap();
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_of_today_and_its_certificate_can_be_changed() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with_tls(&tls).await;
    let url = format!("https://{}/_matrix/key/v2/server", server.name);
    for version in [
        reqwest::tls::Version::TLS_1_2,
        reqwest::tls::Version::TLS_1_3,
    ] {
        let only = client(&tls)
            .tls_version_min(version)
            .tls_version_max(version);
        let only = only.build().unwrap();
        // The listener with TLS may open a moment after the other one.
        let answer = eventually("an answer over TLS", async || {
            only.get(&url).ask().await.ok()
        })
        .await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    }
    let old = client(&tls).http1_only().build().unwrap();
    let answer = old.get(&url).ask().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_11);
    assert_eq!(offer_tls_1_1(&server.name), 0x15, "an alert");

    let other = Folder::new();
    let fresh = Tls::new(&other.0);
    std::fs::copy(&fresh.certificate, &tls.certificate).unwrap();
    std::fs::copy(&fresh.key, &tls.key).unwrap();
    server.hang_up();
    eventually("the new certificate", async || {
        let client = client(&fresh).build().unwrap();
        client.get(&url).ask().await.ok()
    })
    .await;
    // A broken file leaves the certificate in use.
    std::fs::write(&tls.certificate, "no certificate").unwrap();
    server.hang_up();
    eventually("the complaint", async || {
        server.log().contains("stays in use").then_some(())
    })
    .await;
    assert!(
        client(&fresh)
            .build()
            .unwrap()
            .get(&url)
            .ask()
            .await
            .is_ok()
    );
}

/// Greets as a client of 2006 would; returns the type of the record that comes back.
fn offer_tls_1_1(name: &str) -> u8 {
    let mut hello = vec![0x03, 0x02];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0xc0, 0x14, 1, 0]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![0x16, 0x03, 0x01, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    let mut socket = std::net::TcpStream::connect(name).unwrap();
    socket.write_all(&record).unwrap();
    let mut first = [0; 1];
    socket.read_exact(&mut first).unwrap();
    first[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_files_is_turned_away() {
    let server = Server::start().await;
    let alice = server.user("alice").await;
    let second = server.run_again(&["serve"]);
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another"), "{said}");
    assert_eq!(
        alice.get("/account/whoami").await.0,
        200,
        "the first goes on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_database_is_used_and_made_ready() {
    use sqlx::{Connection, Executor};
    // The private database of one server serves as the given one of another.
    let host = Server::start().await;
    let socket = host.socket_folder();
    let url = |name: &str| {
        format!(
            "postgres://amtsbote@localhost/{name}?host={}",
            socket.display()
        )
    };
    let mut conn = sqlx::PgConnection::connect(&url("amtsbote")).await.unwrap();
    conn.execute(
        "CREATE DATABASE given TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    .await
    .unwrap();
    let config = format!(
        "[registration]\nopen = true\n[database]\nurl = \"{}\"\n",
        url("given")
    );
    let mut guest = Server::with(&config, None).await;
    let alice = guest.user("alice").await;
    let room = alice.create_room(json!({})).await;
    alice.say(&room, "kept there").await;
    guest.kill();
    guest.restart().await;
    assert_eq!(alice.history(&room).await, ["kept there"]);
    assert!(!guest.socket_folder().exists(), "no database of its own");
    let mut given = sqlx::PgConnection::connect(&url("given")).await.unwrap();
    let accounts: i64 = sqlx::query_scalar("SELECT count(*) FROM account")
        .fetch_one(&mut given)
        .await
        .unwrap();
    assert_eq!(accounts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_is_judged_as_a_whole() {
    let folder = Folder::new();
    let file = folder.0.join("c.toml");
    std::fs::write(
        &file,
        "server_name = \"x y\"\n[rooms]\ndefault_version = \"99\"\n[lgo]\nlevel = \"info\"\n",
    )
    .unwrap();
    let judged = std::process::Command::new(env!("CARGO_BIN_EXE_amtsbote"))
        .args(["check-config", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(judged.status.code(), Some(1));
    let said = String::from_utf8_lossy(&judged.stdout) + String::from_utf8_lossy(&judged.stderr);
    for key in ["server_name", "default_version", "lgo"] {
        assert!(said.contains(key), "{key} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_peers_answer_breaks_us() {
    let folder = Folder::new();
    let tls = Tls::new(&folder.0);
    let server = Server::with_tls(&tls).await;
    let alice = server.user("alice").await;
    let endless = "x".repeat(1 << 20);
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot json!".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".to_owned(),
        "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 302 Go\r\nlocation: https://10.0.0.1/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "no HTTP at all".to_owned(),
        String::new(),
        format!("HTTP/1.1 200 OK\r\n\r\n{}", endless.repeat(40)),
    ];
    for answer in answers {
        let port = crate::rig::peer::answer_always(&tls, answer.clone().into_bytes());
        let path = format!("/directory/room/%23a%3Alocalhost%3A{port}");
        let (status, body) = alice.get(&path).await;
        let shown: String = answer.chars().take(60).collect();
        assert!([404, 502].contains(&status), "{shown:?}: {status} {body}");
        assert!(body["errcode"].is_string(), "{shown:?}: {body}");
    }
    assert_eq!(alice.get("/account/whoami").await.0, 200);
}
