//! TLS for a mirror with a `ca_file`: its certificates are authorities, and each may also be the server's own certificate.
//!
//! Many internal git servers use a self-signed certificate, often one that is marked as an authority. webpki rejects it as a server
//! certificate; git and curl accept it. Here exactly the certificate in the file is accepted, whatever its extensions, if it names the
//! host: in its alternative names or, if these have no DNS name, in the common name of its subject. Its dates are not checked, because
//! whoever put it into the file trusts it. Every other certificate must have a chain to one of those in the file.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
    StreamOwned,
};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Makes TLS connections that trust these certificates alone.
#[derive(Debug)]
pub(super) struct Trusting {
    config: Arc<ClientConfig>,
}

impl Trusting {
    /// Trusts `certificates`, in DER.
    pub(super) fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().ok();
        let verifier = Verifier { certificates, chain, provider: Arc::clone(&provider) };
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS)?;
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
        Ok(Self { config: Arc::new(config) })
    }
}

/// The TLS configuration for a server that is not a mirror. Its certificate is judged like that of
/// a mirror if there is a `ca_file`, and by the system's authorities otherwise.
///
/// # Errors
/// [`super::Error::Unable`], when the file or the system's authorities cannot be used.
#[cfg(feature = "fleet")]
pub fn client_tls(ca_file: Option<&std::path::Path>) -> Result<ClientConfig, super::Error> {
    use rustls_platform_verifier::BuilderVerifierExt;
    if let Some(file) = ca_file {
        return Ok((*super::http::certificates(file)?.config).clone());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config =
        config.with_protocol_versions(rustls::ALL_VERSIONS).and_then(BuilderVerifierExt::with_platform_verifier);
    let unusable =
        |error: rustls::Error| super::Error::Unable(format!("the system's authorities cannot be used: {error}"));
    Ok(config.map_err(unusable)?.with_no_client_auth())
}

impl<In: Transport> Connector<In> for Trusting {
    type Out = Either<In, Tls>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        let Some(plain) = chained else { return Ok(None) };
        if !details.needs_tls() || plain.is_tls() {
            return Ok(Some(Either::A(plain)));
        }
        let host = details.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| Error::Tls("the host is not a valid name for TLS"))?;
        let mut conn = ClientConnection::new(Arc::clone(&self.config), name)?;
        let mut sock = TransportAdapter::new(plain.boxed(), Arc::clone(&details.current_time));
        sock.set_timeout(details.timeout);
        conn.complete_io(&mut sock)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Tls { buffers, stream: StreamOwned { conn, sock } })))
    }
}

/// A TLS connection.
pub(super) struct Tls {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Transport for Tls {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.get_mut().set_timeout(timeout);
        Ok(std::io::Write::write_all(&mut self.stream, &self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = std::io::Read::read(&mut self.stream, self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Verifier {
    certificates: Vec<CertificateDer<'static>>,
    /// Judges chains; `None` when no certificate can be read as an authority.
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.certificates.iter().any(|own| own.as_ref() == end_entity.as_ref()) {
            return match is_named(end_entity, server_name) {
                true => Ok(ServerCertVerified::assertion()),
                false => Err(CertificateError::NotValidForName.into()),
            };
        }
        match &self.chain {
            Some(chain) => chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the certificate names the host.
fn is_named(certificate: &CertificateDer<'_>, host: &ServerName<'_>) -> bool {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return false };
    if parsed.verify_is_valid_for_subject_name(host).is_ok() {
        return true;
    }
    let has_names = parsed.valid_dns_names().next().is_some();
    let common = common_name(parsed.subject());
    !has_names && common.is_some_and(|common| common.eq_ignore_ascii_case(&host.to_str()))
}

/// The common name of a subject (RFC 5280, section 4.1.2.6), the last one if there are several.
fn common_name(subject: &[u8]) -> Option<&str> {
    /// The object identifier 2.5.4.3 in DER.
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let at = subject.windows(COMMON_NAME.len()).rposition(|window| window == COMMON_NAME)?;
    // A string of any kind follows: its tag, its length in one byte, its text.
    let [_, length, rest @ ..] = &subject[at + COMMON_NAME.len()..] else { return None };
    std::str::from_utf8(rest.get(..usize::from(*length))?).ok().filter(|_| *length < 0x80)
}
