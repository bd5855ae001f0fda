//! TLS for listeners: 1.3, and 1.2 with forward secrecy (BSI TR-02102-2).

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::PrivateKeyDer,
    pki_types::pem::PemObject,
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::{ClientCertificate, Tls},
    federation::tls::{certificates, provider},
};

/// TLS of a listener, as its files were read last.
#[derive(Debug)]
pub(super) struct Endpoint {
    files: Tls,
    current: ArcSwap<ServerConfig>,
}

impl Endpoint {
    /// Reads certificate chain and key, and the authorities of clients.
    pub(super) fn open(files: &Tls) -> anyhow::Result<Self> {
        Ok(Self {
            files: files.clone(),
            current: ArcSwap::from_pointee(read(files)?),
        })
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files again. Files that do not fit together leave the old ones in use.
    pub(super) fn reload(&self) {
        match read(&self.files) {
            Ok(fresh) => {
                self.current.store(Arc::new(fresh));
                tracing::info!(certificate = %self.files.certificate.display(), "read again");
            }
            Err(error) => tracing::error!("the old certificate stays in use: {error:#}"),
        }
    }
}

fn read(files: &Tls) -> anyhow::Result<ServerConfig> {
    let certificate = files.certificate.display();
    let chain = certificates(&files.certificate)
        .with_context(|| format!("cannot read the certificate {certificate}"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("cannot read the key {}", files.key.display()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(client_verifier(files)?)
        .with_single_cert(chain, key)
        .with_context(|| format!("certificate {certificate} and its key"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Checks certificates of clients, where they are asked for.
fn client_verifier(files: &Tls) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let Some(file) = &files.client_ca else {
        return Ok(Arc::new(NoClientAuth));
    };
    let what = || format!("authorities of clients {}", file.display());
    let mut roots = RootCertStore::empty();
    for authority in certificates(file).with_context(what)? {
        roots.add(authority).with_context(what)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match files.client_certificate {
        ClientCertificate::Require => builder,
        ClientCertificate::Request => builder.allow_unauthenticated(),
    };
    builder.build().with_context(what)
}
