//! TLS as camouflage (review-security S18): what a scanner sees is any web server with a certificate of its own making.
//! Who is there is proved inside, by a secret and by WireGuard; so no certificate is believed and none names anybody.

use std::{io, net::SocketAddr, sync::Arc};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    client::TlsStream as ClientStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
        version::TLS13,
    },
    server::TlsStream as ServerStream,
};

use crate::wire::stream::BINDING;

/// The exporter label of RFC 9266.
const CHANNEL_BINDING: &[u8] = b"EXPORTER-Channel-Binding";

/// The server's side, with a key and a certificate of this run.
///
/// # Errors
/// The system gives no random numbers.
pub(super) fn acceptor() -> io::Result<TlsAcceptor> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    params.distinguished_name = DistinguishedName::new();
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], private)
        })
        .map_err(io::Error::other)?;
    // No ticket: it would be sent before the other side has proved anything, and tie two visits together.
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The client's side.
///
/// # Errors
/// Never on a system with random numbers.
pub(super) fn client() -> io::Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider())))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// Shakes hands as a client. An address as the server's name sends no SNI.
pub(super) async fn connect(
    connector: &TlsConnector,
    stream: TcpStream,
    to: SocketAddr,
) -> io::Result<ClientStream<TcpStream>> {
    let name = ServerName::IpAddress(to.ip().into());
    connector.connect(name, stream).await
}

/// What binds a preamble to a client's connection.
pub(super) fn client_binding(stream: &ClientStream<TcpStream>) -> io::Result<[u8; BINDING]> {
    let exported = stream
        .get_ref()
        .1
        .export_keying_material([0; BINDING], CHANNEL_BINDING, None);
    exported.map_err(io::Error::other)
}

/// What binds a preamble to a server's connection.
pub(super) fn server_binding(stream: &ServerStream<TcpStream>) -> io::Result<[u8; BINDING]> {
    let exported = stream
        .get_ref()
        .1
        .export_keying_material([0; BINDING], CHANNEL_BINDING, None);
    exported.map_err(io::Error::other)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Takes any certificate, whose key must have signed the handshake all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
