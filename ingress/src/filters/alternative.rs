//! `Alt-Svc` (RFC 7838): tells clients of HTTPS that HTTP/3 is served here, too.
//!
//! An endpoint's own field stays as it is: who writes one knows why, such as `clear` in order not to
//! have HTTP/3.

use http::header::ALT_SVC;
use http::{HeaderValue, Response, Version};
use sealane_config::model::{GatewaySettings, TlsVersions};

use super::forwarded::Peer;

/// The field, if HTTP/3 is served on this port.
pub(crate) fn field(http3: bool, port: u16) -> Option<HeaderValue> {
    // What is written is digits and letters.
    http3
        .then(|| HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok())
        .flatten()
}

/// Whether a client can have what the field says: it came to us itself, over TLS, and neither the
/// version of TLS nor PROXY headers, which QUIC has none of, stand in its way.
pub(crate) fn is_for(peer: &Peer, settings: &GatewaySettings) -> bool {
    peer.is_over_tls()
        && settings.tls.versions != TlsVersions::Only12
        && !settings.proxy_protocol.https
}

/// Writes the field, if it is for this client and it does not use HTTP/3 already.
pub(crate) fn write<B>(
    field: Option<&HeaderValue>,
    peer: &Peer,
    settings: &GatewaySettings,
    version: Version,
    response: &mut Response<B>,
) {
    if let Some(field) = field
        && version < Version::HTTP_3
        && is_for(peer, settings)
    {
        let headers = response.headers_mut();
        headers.entry(ALT_SVC).or_insert_with(|| field.clone());
    }
}
