//! TLS as BSI TR-02102-2 asks: 1.3, and 1.2 with forward secrecy and authenticated encryption.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;

use super::Error;

/// The cryptography we use. All of rustls's suites are AEAD with forward secrecy; `ChaCha20` is not
/// among the recommendations of TR-02102-2 and is left out.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .retain(|suite| !format!("{:?}", suite.suite()).contains("CHACHA20"));
    Arc::new(provider)
}

/// For outgoing connections: the system's authorities and those given.
pub fn client_config(extra_ca: &[PathBuf]) -> Result<ClientConfig, Error> {
    let setup = |error: &dyn std::fmt::Display| Error::Setup(error.to_string());
    let mut roots: Vec<CertificateDer<'static>> = Vec::new();
    for file in extra_ca {
        let certificates = CertificateDer::pem_file_iter(file)
            .map_err(|error| Error::Setup(format!("{}: {error}", file.display())))?;
        for certificate in certificates {
            roots.push(
                certificate
                    .map_err(|error| Error::Setup(format!("{}: {error}", file.display())))?,
            );
        }
    }
    let provider = provider();
    let verifier =
        Verifier::new_with_extra_roots(roots, provider.clone()).map_err(|error| setup(&error))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
