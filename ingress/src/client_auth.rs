//! Whether a request may come in by what its client showed in the TLS handshake (ingress-nginx
//! `auth-tls-*`), and what the backend is told about that.
//!
//! This comes before everything else that is done with a request that came over TLS. A request over
//! plain HTTP is redirected if its rule says so; if it is not, there is no certificate. nginx serves
//! such requests; here they are refused, but for those that a rule of their own takes for an
//! authority that hands out certificates (RFC 8555, 8.3).

use http::{HeaderMap, HeaderName, HeaderValue, Version};
use sealane_config::Snapshot;
use sealane_config::model::{
    Authorities, ClientAuth, ClientVerification, HostMatch, PathMatch, RouteRule,
};
use sealane_proxy::{Error, ErrorKind};
use std::sync::Arc;

use crate::filters::redirect;
use crate::tls::{Session, Shown, certificate_of};

const VERIFY: HeaderName = HeaderName::from_static("ssl-client-verify");
const SUBJECT: HeaderName = HeaderName::from_static("ssl-client-subject-dn");
const ISSUER: HeaderName = HeaderName::from_static("ssl-client-issuer-dn");
const CERTIFICATE: HeaderName = HeaderName::from_static("ssl-client-cert");

/// Why a request does not come in.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is answered with this error.
    Error(Error),
    /// Its client has no good certificate, and is to be sent to the host's page about that, if it has
    /// one.
    Certificate(Error),
}

/// Whether the connection is one that may bring requests for `host`.
///
/// Clients open HTTP/2 connections for other names too that they have an address in common with
/// (RFC 9113, 9.1.1). A host whose clients show certificates is not served through a connection that
/// asked for another one: nobody was asked for a certificate there, or for another one.
///
/// # Errors
/// [`ErrorKind::Misdirected`]: the client should try again with a connection of its own.
pub(crate) fn belongs(
    snapshot: &Snapshot,
    host: &str,
    client: Option<&ClientAuth>,
    session: Option<&Session>,
    version: Version,
) -> Result<(), Error> {
    let Some(session) = session else {
        return Ok(());
    };
    let name = session.server_name();
    if name == Some(host) {
        return Ok(());
    }
    let asks = client.is_some_and(|client| client.asks().is_some());
    if asks && !both_any(snapshot, host, name) {
        let detail = "the host wants certificates of clients, and a connection of its own";
        return Err(Error::new(ErrorKind::Misdirected, detail));
    }
    let table = &snapshot.certificates;
    let is_other = name.is_some_and(|name| {
        let (ours, theirs) = (certificate_of(table, name), certificate_of(table, host));
        ours.zip(theirs)
            .is_some_and(|(ours, theirs)| !Arc::ptr_eq(ours, theirs))
    });
    if version >= Version::HTTP_2 && is_other {
        let detail = "the connection was made with the certificate of another host";
        return Err(Error::new(ErrorKind::Misdirected, detail));
    }
    Ok(())
}

/// Neither name has rules of its own: the same ones are for both, certificates of clients included.
fn both_any(snapshot: &Snapshot, host: &str, name: Option<&str>) -> bool {
    [host, name.unwrap_or("")].iter().all(|name| {
        let routes = snapshot.routes.host(name);
        routes.is_some_and(|routes| routes.host == HostMatch::Any)
    })
}

/// Whether the client may come in.
///
/// # Errors
/// [`Refusal`].
pub(crate) fn admit(client: &ClientAuth, session: Option<&Session>) -> Result<(), Refusal> {
    let Some(authorities) = &client.authorities else {
        let detail = "there is nobody to verify certificates of clients with";
        return Err(Refusal::Error(Error::new(ErrorKind::AccessDenied, detail)));
    };
    let bad = |detail| {
        let error = Error::new(ErrorKind::ClientCertificate, detail);
        Err(Refusal::Certificate(error))
    };
    match (client.verify, shown(client, authorities, session)) {
        (ClientVerification::Required, Shown::Nothing) => {
            return bad("the client has shown no certificate");
        }
        (ClientVerification::OptionalAnyIssuer, Shown::Bad(why)) if why.is_only_unknown() => {}
        (ClientVerification::Off, _) | (_, Shown::Nothing | Shown::Good) => {}
        (_, Shown::Bad(_)) => return bad("the client's certificate is not accepted"),
    }
    let subject = session.map_or("", |session| &*session.identity().subject);
    if client
        .subject
        .as_ref()
        .is_some_and(|wanted| !wanted.is_in(subject))
    {
        let detail = "the certificate is not of a client that may come in";
        return Err(Refusal::Error(Error::new(ErrorKind::AccessDenied, detail)));
    }
    Ok(())
}

/// A rule for nothing but challenges of certificate authorities, which come over plain HTTP.
pub(crate) fn is_for_challenges(rule: &RouteRule) -> bool {
    match &rule.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Start(path) => {
            redirect::is_challenge(path)
        }
        PathMatch::Regex(_) => false,
    }
}

/// Tells the backend who the client is. What clients claim under these names was removed before.
pub(crate) fn write(client: &ClientAuth, session: Option<&Session>, headers: &mut HeaderMap) {
    let Some(authorities) = &client.authorities else {
        return;
    };
    let verify = match shown(client, authorities, session) {
        Shown::Nothing => HeaderValue::from_static("NONE"),
        Shown::Good => HeaderValue::from_static("SUCCESS"),
        Shown::Bad(why) => match HeaderValue::try_from(format!("FAILED:{why}")) {
            Ok(value) => value,
            Err(_texts_are_ours) => HeaderValue::from_static("FAILED"),
        },
    };
    headers.insert(VERIFY, verify);
    let Some(session) = session else {
        return;
    };
    let identity = session.identity();
    for (name, text) in [(SUBJECT, &identity.subject), (ISSUER, &identity.issuer)] {
        if let (false, Ok(value)) = (text.is_empty(), HeaderValue::from_str(text)) {
            headers.insert(name, value);
        }
    }
    let certificate = client.pass_certificate.then(|| session.certificate());
    if let Some(certificate) = certificate.flatten() {
        headers.insert(CERTIFICATE, certificate);
    }
}

fn shown(client: &ClientAuth, authorities: &Arc<Authorities>, session: Option<&Session>) -> Shown {
    session
        .filter(|_| client.verify != ClientVerification::Off)
        .map_or(Shown::Nothing, |session| session.shown(client, authorities))
}
