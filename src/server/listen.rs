//! One listener: accept, TLS, HTTP/1.1 or 2, and an end that lets requests finish.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::tls::Endpoint;

/// Connections of one listener.
const CONNECTIONS_MAX: usize = 50_000;
/// Time for a TLS handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(20);

/// Accepts until `stop` fires; connections are tracked in `requests`.
pub(super) fn serve(
    socket: TcpListener,
    tls: Option<Arc<Endpoint>>,
    router: Router,
    stop: CancellationToken,
    requests: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: waiting is all there is to do.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                continue;
            };
            // Small answers at once: the kernel would wait for more.
            let _ = stream.set_nodelay(true);
            let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
            requests.spawn(async move {
                let _place = place;
                match tls {
                    None => connection(stream, peer, router, stop).await,
                    Some(tls) => {
                        match tokio::time::timeout(PATIENCE, tls.acceptor().accept(stream)).await {
                            Ok(Ok(stream)) => connection(stream, peer, router, stop).await,
                            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake"),
                            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                        }
                    }
                }
            });
        }
    });
}

async fn connection<S>(stream: S, peer: SocketAddr, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(Duration::from_mins(1)))
        .max_concurrent_streams(200);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            done = connection.as_mut() => {
                if let Err(error) = done {
                    tracing::debug!(%peer, %error, "connection");
                }
                return;
            }
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
