//! TLS as BSI TR-02102-2 asks: 1.3, and 1.2 with forward secrecy and authenticated encryption.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use super::Error;
use crate::config::Outbound;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time without a byte.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// The cryptography we use. All of rustls's suites are AEAD with forward secrecy; `ChaCha20` is not
/// among the recommendations of TR-02102-2 and is left out.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .retain(|suite| !format!("{:?}", suite.suite()).contains("CHACHA20"));
    Arc::new(provider)
}

/// The certificates in a PEM file.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_file_iter(file)?.collect()
}

/// A client for what is ours and stands inside: no proxy, addresses not guarded.
pub fn plain_client(outbound: &Outbound) -> Result<reqwest::Client, Error> {
    let builder = reqwest::Client::builder()
        .tls_backend_preconfigured(client_config(outbound)?)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    builder.build().map_err(|error| setup(&error))
}

/// For outgoing connections: whom we trust, and how we show who we are.
pub fn client_config(outbound: &Outbound) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier(outbound)?);
    let mut config = match &outbound.client_identity {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let in_file = |file: &Path, error: &dyn std::fmt::Display| {
                Error::Setup(format!("{}: {error}", file.display()))
            };
            let chain = certificates(&files.certificate)
                .map_err(|error| in_file(&files.certificate, &error))?;
            let key = PrivateKeyDer::from_pem_file(&files.key)
                .map_err(|error| in_file(&files.key, &error))?;
            let built = builder.with_client_auth_cert(chain, key);
            built.map_err(|error| in_file(&files.certificate, &error))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The authorities of the system and those given; or only those that take their place.
fn verifier(outbound: &Outbound) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if outbound.replace_ca.is_empty() {
        let roots = read(&outbound.extra_ca)?;
        let verifier = Verifier::new_with_extra_roots(roots, provider());
        return Ok(Arc::new(verifier.map_err(|error| setup(&error))?));
    }
    let mut roots = RootCertStore::empty();
    for root in read(&outbound.replace_ca)? {
        roots.add(root).map_err(|error| setup(&error))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    Ok(verifier.build().map_err(|error| setup(&error))?)
}

fn read(files: &[std::path::PathBuf]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut roots = Vec::new();
    for file in files {
        let of_file = certificates(file);
        let of_file =
            of_file.map_err(|error| Error::Setup(format!("{}: {error}", file.display())))?;
        roots.extend(of_file);
    }
    Ok(roots)
}

fn setup(error: &dyn std::fmt::Display) -> Error {
    Error::Setup(error.to_string())
}
