//! Certificate authorities of the user's own, and what they vouch for.
//!
//! Used for certificates of clients and of endpoints alike. A certificate is verified as RFC 5280
//! says, by webpki: signatures, validity, name constraints, extended key usage. With revocation lists
//! every certificate of a chain needs one that has not expired, as OpenSSL has it.

use std::fmt;
use std::panic::catch_unwind;

use rustls::DistinguishedName;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime,
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
    anchor_from_trusted_cert,
};

use super::ObjectRef;

/// Who may vouch for a certificate, and what was taken back.
pub struct Authorities {
    /// The object that they come from.
    pub source: ObjectRef,
    anchors: Vec<TrustAnchor<'static>>,
    subjects: Vec<DistinguishedName>,
    revoked: Vec<CertRevocationList<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why [`Authorities`] cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAuthorities {
    /// There is none.
    #[error("holds no certificate")]
    Empty,
    /// A certificate is none.
    #[error("holds a certificate that cannot be parsed")]
    Certificate,
    /// A revocation list is none, or is of a kind that is not supported (delta, indirect, version 1).
    #[error("holds a revocation list that cannot be used")]
    RevocationList,
}

/// Why a certificate is not accepted. The texts are OpenSSL's where it has one, because backends
/// compare with them (`ssl-client-verify: FAILED:…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// None of the authorities vouches for it.
    #[error("unable to get local issuer certificate")]
    UnknownIssuer,
    /// Its time is over, or that of one it depends on.
    #[error("certificate has expired")]
    Expired,
    /// Its time is not yet come.
    #[error("certificate is not yet valid")]
    NotYetValid,
    /// Its authority has taken it back.
    #[error("certificate revoked")]
    Revoked,
    /// Whether it was taken back is not known, or the list is too old.
    #[error("unable to get certificate CRL")]
    RevocationUnknown,
    /// It is for another use.
    #[error("unsuitable certificate purpose")]
    WrongUse,
    /// More certificates lie between it and the authority than may.
    #[error("certificate chain too long")]
    ChainTooLong,
    /// An authority on the way may not vouch for such names.
    #[error("permitted subtree violation")]
    NameConstraint,
    /// It is for another name.
    #[error("hostname mismatch")]
    WrongName,
    /// It breaks the rules in another way.
    #[error("certificate rejected")]
    Rejected,
}

impl Untrusted {
    /// Only the authority is unknown: nginx's `optional_no_ca` lets the request pass.
    pub fn is_only_unknown(self) -> bool {
        self == Self::UnknownIssuer
    }
}

/// What a certificate is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateUse {
    /// By a TLS client.
    Client,
    /// By a TLS server.
    Server,
}

impl Authorities {
    /// Authorities by their certificates, with the revocation lists that they have published.
    ///
    /// # Errors
    /// [`BadAuthorities`].
    pub fn new(
        source: ObjectRef,
        certificates: &[CertificateDer<'_>],
        revocation_lists: &[CertificateRevocationListDer<'_>],
        provider: &CryptoProvider,
    ) -> Result<Self, BadAuthorities> {
        if certificates.is_empty() {
            return Err(BadAuthorities::Empty);
        }
        let anchors = certificates
            .iter()
            .map(|der| anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_parse| BadAuthorities::Certificate)?;
        let revoked = revocation_lists
            .iter()
            .map(|der| revocation_list(der))
            .collect::<Option<Vec<_>>>()
            .ok_or(BadAuthorities::RevocationList)?;
        Ok(Self {
            source,
            subjects: anchors
                .iter()
                .map(|anchor| DistinguishedName::in_sequence(&anchor.subject))
                .collect(),
            anchors,
            revoked,
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// The names of the authorities, which a server shows to clients.
    pub fn subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    /// Verifies a chain, the certificate itself first, with at most `depth` certificates between it
    /// and an authority, and that it is for `name` if one is given.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        usage: CertificateUse,
        depth: usize,
        name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Untrusted> {
        let (leaf, between) = chain.split_first().ok_or(Untrusted::Rejected)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(untrusted)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let usage = match usage {
            CertificateUse::Client => KeyUsage::client_auth(),
            CertificateUse::Server => KeyUsage::server_auth(),
        };
        let is_short = |path: &VerifiedPath<'_>| {
            if path.intermediate_certificates().count() > depth {
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            Ok(())
        };
        leaf.verify_for_usage(
            self.algorithms.all,
            &self.anchors,
            between,
            now,
            usage,
            revocation,
            Some(&is_short),
        )
        .map_err(untrusted)?;
        match name {
            Some(name) => leaf
                .verify_is_valid_for_subject_name(name)
                .map_err(untrusted),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities")
            .field("source", &self.source)
            .field("anchors", &self.anchors.len())
            .field("revocation_lists", &self.revoked.len())
            .finish_non_exhaustive()
    }
}

/// Reads a list. A parser that panics over it would end the one task that compiles everything.
fn revocation_list(der: &[u8]) -> Option<CertRevocationList<'static>> {
    let read = catch_unwind(|| OwnedCertRevocationList::from_der(der));
    read.ok()?.ok().map(CertRevocationList::from)
}

fn untrusted(error: webpki::Error) -> Untrusted {
    use webpki::Error;
    match error {
        Error::UnknownIssuer => Untrusted::UnknownIssuer,
        Error::CertExpired { .. } | Error::InvalidCertValidity => Untrusted::Expired,
        Error::CertNotValidYet { .. } => Untrusted::NotYetValid,
        Error::CertRevoked => Untrusted::Revoked,
        Error::UnknownRevocationStatus | Error::CrlExpired { .. } => Untrusted::RevocationUnknown,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => Untrusted::WrongUse,
        Error::MaximumPathDepthExceeded
        | Error::MaximumPathBuildCallsExceeded
        | Error::PathLenConstraintViolated => Untrusted::ChainTooLong,
        Error::NameConstraintViolation => Untrusted::NameConstraint,
        Error::CertNotValidForName(_) => Untrusted::WrongName,
        _ => Untrusted::Rejected,
    }
}
