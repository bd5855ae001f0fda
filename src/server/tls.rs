//! TLS for listeners: 1.3, and 1.2 with forward secrecy (BSI TR-02102-2).

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{config::Tls, federation::tls::provider};

/// The certificate of a listener, as it was read last.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Reads certificate chain and key; reads them again at every `SIGHUP` until `stop`.
pub(super) fn acceptor(files: &Tls, stop: &CancellationToken) -> anyhow::Result<TlsAcceptor> {
    let current = Arc::new(Current(ArcSwap::from_pointee(read(files)?)));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(current.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (files, stop) = (files.clone(), stop.clone());
    tokio::spawn(async move { stop.run_until_cancelled(reload(&files, &current)).await });
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn read(files: &Tls) -> anyhow::Result<CertifiedKey> {
    let certificate = files.certificate.display();
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read the certificate {certificate}"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("cannot read the key {}", files.key.display()))?;
    CertifiedKey::from_der(chain, key, &provider())
        .with_context(|| format!("certificate {certificate} and its key"))
}

/// Takes what is in the files at every `SIGHUP`. Files that do not fit together leave the old
/// certificate in use.
async fn reload(files: &Tls, current: &Current) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::warn!("certificates cannot be read again at SIGHUP");
        return;
    };
    while hangup.recv().await.is_some() {
        match read(files) {
            Ok(fresh) => {
                current.0.store(Arc::new(fresh));
                tracing::info!(certificate = %files.certificate.display(), "read again");
            }
            Err(error) => tracing::error!("the old certificate stays in use: {error:#}"),
        }
    }
}
