//! A proxy that notes where it was asked to connect to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use base64::Engine as _;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A running proxy that asks for a name and a password.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// It knows the way to `known` (what it is asked for, local port), and none other.
    pub(crate) async fn start(credentials: &str, known: HashMap<String, u16>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        let wanted = format!("basic {encoded}").to_lowercase();
        let (log, known) = (asked.clone(), Arc::new(known));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let (log, known, wanted) = (log.clone(), known.clone(), wanted.clone());
                // Who calls may hang up at any point.
                tokio::spawn(async move { serve(stream, &wanted, &known, &log).await });
            }
        });
        Self { port, asked, task }
    }

    /// What it was asked to connect to.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut client: TcpStream,
    wanted: &str,
    known: &HashMap<String, u16>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8_192 {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or(&head)
        .to_owned();
    if !head.to_lowercase().contains(wanted) {
        log.lock()
            .unwrap()
            .push(format!("without credentials: {target}"));
        let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
        return client.write_all(refusal).await;
    }
    log.lock().unwrap().push(target.clone());
    let Some(port) = known.get(&target) else {
        return client
            .write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            .await;
    };
    let mut server = TcpStream::connect(("127.0.0.1", *port)).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
