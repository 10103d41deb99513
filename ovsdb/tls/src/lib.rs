//! TLS for `ssl:` endpoints of Open vSwitch, of databases and of switches: rustls with the ring provider, mutual
//! authentication, certificates from PEM files that are read at every connection, so that renewed ones need no restart.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What the server's certificate has to prove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// [`Verification::Chain`] when an address is dialled, [`Verification::Name`] when a name is.
    #[default]
    ByEndpoint,
    /// That the CA signed it, whatever name is in it: as all of Open vSwitch's own programs do. ovs-pki's
    /// certificates carry no subject alternative name, so nothing more can be proved of them.
    Chain,
    /// That the CA signed it for the host that was dialled (RFC 6125).
    Name,
}

/// Key and certificates, as ovs-vswitchd's `--private-key`, `--certificate` and `--ca-cert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Our private key, PEM.
    pub private_key: PathBuf,
    /// Our certificate and those between it and the CA that the server knows, PEM.
    pub certificate: PathBuf,
    /// The CA that signed the server's certificate, PEM.
    pub ca_certificate: PathBuf,
    /// How strict to be.
    pub verification: Verification,
}

/// A handshake that lacks its stream only.
pub struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Handshake {
    /// Shakes hands over a stream.
    ///
    /// # Errors
    /// The stream ended, or one of the two does not trust the other.
    pub async fn run(self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name, stream).await
    }
}

/// Connects to a name or an address (IPv6 without brackets) without TLS.
///
/// # Errors
/// What the resolver and connect(2) say.
pub async fn open_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    // Requests are written whole, so waiting to fill a segment only adds latency.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The same with TLS, which an `ssl:` endpoint cannot do without.
///
/// # Errors
/// There is no `tls`; as [`Tls::handshake`], [`open_tcp`] and [`Handshake::run`].
pub async fn open_ssl(tls: Option<&Tls>, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
    let tls = tls.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "an ssl: endpoint needs a key, certificate and CA")
    })?;
    // Files before the network: a missing key is worth knowing without a peer.
    let handshake = tls.handshake(host)?;
    handshake.run(open_tcp(host, port).await?).await
}

impl Tls {
    /// Reads the files. `host` is what is dialled: a name, or an address without brackets.
    ///
    /// # Errors
    /// A file cannot be read or used, or `host` is no name that a certificate could be for.
    pub fn handshake(&self, host: &str) -> io::Result<Handshake> {
        let ip: Option<IpAddr> = host.parse().ok();
        let name = match ip {
            Some(ip) => ServerName::from(ip),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(&self.ca_certificate)? {
            roots.add(certificate).map_err(|e| in_file(&self.ca_certificate, &e))?;
        }
        let key = PrivateKeyDer::from_pem_file(&self.private_key).map_err(|e| in_file(&self.private_key, &e))?;
        let chain = read_certificates(&self.certificate)?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let chain_only = match self.verification {
            Verification::Chain => true,
            Verification::Name => false,
            Verification::ByEndpoint => ip.is_some(),
        };
        let builder = if chain_only {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(ChainVerifier { roots, provider }))
        } else {
            builder.with_root_certificates(roots)
        };
        let config = builder.with_client_auth_cert(chain, key).map_err(|e| in_file(&self.certificate, &e))?;
        Ok(Handshake { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(in_file(path, &"no certificate in it")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(in_file(path, &error)),
    }
}

fn in_file(path: &Path, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {error}", path.display()))
}

/// Verifies everything but the name: see [`Verification::Chain`].
#[derive(Debug)]
struct ChainVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
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
