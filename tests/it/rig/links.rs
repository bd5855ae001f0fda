//! Links between servers of ours that a test can cut, each direction alone.
//!
//! Every server is reached through a proxy, and its name carries the proxy's port. Who calls is told
//! by the process at the other end of the connection, so that one proxy serves for all links to a
//! server.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{free_port, server::Server, tls::Tls};

/// What proxies and the test share.
struct Shared {
    /// Process of each server, by its number.
    pids: Mutex<Vec<i32>>,
    /// `open[from][to]`.
    open: watch::Sender<Vec<Vec<bool>>>,
}

/// Servers that reach each other through proxies.
pub(crate) struct Links {
    pub(crate) servers: Vec<Server>,
    shared: Arc<Shared>,
    proxies: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Links {
    fn drop(&mut self) {
        for proxy in &self.proxies {
            proxy.abort();
        }
    }
}

impl Links {
    pub(crate) async fn start(tls: &Tls, count: usize) -> Self {
        let shared = Arc::new(Shared {
            pids: Mutex::new(Vec::new()),
            open: watch::Sender::new(vec![vec![true; count]; count]),
        });
        let mut links = Self {
            servers: Vec::new(),
            shared: shared.clone(),
            proxies: Vec::new(),
        };
        for to in 0..count {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let outside = socket.local_addr().unwrap().port();
            let inside = free_port();
            let proxy = proxy(socket, inside, to, shared.clone());
            links.proxies.push(tokio::spawn(proxy));
            let server = Server::behind(tls, outside, inside).await;
            shared.pids.lock().unwrap().push(server.pid());
            links.servers.push(server);
        }
        links
    }

    /// Opens or cuts a link; connections over it break.
    pub(crate) fn set(&self, from: usize, to: usize, open: bool) {
        self.shared.open.send_modify(|links| links[from][to] = open);
    }

    pub(crate) fn open_all(&self) {
        self.shared.open.send_modify(|links| {
            links.iter_mut().flatten().for_each(|open| *open = true);
        });
    }

    /// Kills a server and starts it again.
    pub(crate) async fn kill_and_restart(&mut self, number: usize) {
        self.servers[number].kill();
        self.servers[number].restart().await;
        self.shared.pids.lock().unwrap()[number] = self.servers[number].pid();
    }
}

async fn proxy(socket: TcpListener, inside: u16, to: usize, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((mut caller, address)) = socket.accept().await {
        let shared = shared.clone();
        connections.spawn(async move {
            let pids = shared.pids.lock().unwrap().clone();
            // A server that was killed meanwhile needs no answer.
            let Some(from) = caller_of(address, &pids) else {
                return;
            };
            let mut open = shared.open.subscribe();
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", inside)).await else {
                return;
            };
            let cut = async {
                let _ = open.wait_for(|links| !links[from][to]).await;
            };
            tokio::select! {
                () = cut => {}
                _ = tokio::io::copy_bidirectional(&mut caller, &mut server) => {}
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Which of some processes has the other end of a connection.
fn caller_of(address: SocketAddr, pids: &[i32]) -> Option<usize> {
    let local = format!("0100007F:{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let inode = table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(1) == Some(&local.as_str()))
            .then(|| format!("socket:[{}]", columns.get(9).unwrap_or(&"")))
    })?;
    pids.iter().position(|pid| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let mut files = files.into_iter().flatten().flatten();
        files.any(|file| {
            std::fs::read_link(file.path()).is_ok_and(|target| target.to_str() == Some(&inode))
        })
    })
}
