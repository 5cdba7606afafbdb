//! Certificates that clients show during a handshake.
//!
//! The handshake only makes sure that the client has the certificate's key, and keeps what it showed.
//! Whether that is good enough is decided for each request, against the authorities as they are then:
//! so a client reads why it is refused, and neither an old connection nor a resumed session outlives
//! a change of authorities. nginx does it in this order too.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sealane_config::model::{Authorities, ClientVerification};

/// The longest chain that is taken, bytes: it is kept with the connection, and in its tickets.
const MAX_CHAIN: usize = 32 * 1024;

/// Accepts any certificate whose key the client has.
#[derive(Debug)]
pub(super) struct Recorder {
    subjects: Box<[DistinguishedName]>,
    provider: Arc<CryptoProvider>,
}

impl Recorder {
    /// Names the authorities to clients, unless certificates of others are welcome.
    pub(super) fn new(
        authorities: &Authorities,
        verify: ClientVerification,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        let subjects = match verify {
            ClientVerification::OptionalAnyIssuer => Box::default(),
            ClientVerification::Required
            | ClientVerification::Optional
            | ClientVerification::Off => authorities.subjects().into(),
        };
        Self { subjects, provider }
    }
}

impl ClientCertVerifier for Recorder {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let between: usize = intermediates.iter().map(|der| der.len()).sum();
        if end_entity.len() + between > MAX_CHAIN {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
