//! Requests with the same text go to the same endpoint (ingress-nginx `upstream-hash-by`).

use std::hash::Hasher;

use http::Request;
use sealane_config::model::{HashBy, HashPart};
use siphasher::sip::SipHasher13;

use crate::cookies;
use crate::decide::{Asked, Came};

/// The key of a request; `None` if it has nothing of what the text is made of, so that it may go
/// anywhere rather than where all others without it go.
///
/// All replicas of the gateway have to find the same: the hash is one that does not change from one
/// release of the standard library to the next.
pub(crate) fn key<B>(
    by: &HashBy,
    request: &Request<B>,
    asked: &Asked<'_>,
    came: Came<'_>,
) -> Option<u64> {
    let mut hasher = SipHasher13::new();
    let mut has_any = false;
    for part in &by.0 {
        if let HashPart::Text(text) = part {
            hasher.write(text.as_bytes());
            continue;
        }
        let mut add = |bytes: &[u8]| {
            has_any |= !bytes.is_empty();
            hasher.write(bytes);
        };
        add_part(part, request, asked, came, &mut add);
    }
    has_any.then(|| hasher.finish())
}

fn add_part<B>(
    part: &HashPart,
    request: &Request<B>,
    asked: &Asked<'_>,
    came: Came<'_>,
    add: &mut impl FnMut(&[u8]),
) {
    let uri = request.uri();
    let query = uri.query().unwrap_or_default();
    match part {
        HashPart::Text(text) => add(text.as_bytes()),
        HashPart::Scheme => add(if came.secure { b"https" } else { b"http" }),
        HashPart::Host => add(asked.host.as_bytes()),
        HashPart::RequestUri => {
            let text = uri.path_and_query().map_or("/", |text| text.as_str());
            add(text.as_bytes());
        }
        HashPart::Path => add(asked.path.matched().as_bytes()),
        HashPart::Query => add(query.as_bytes()),
        HashPart::Client => match came.client.to_canonical() {
            std::net::IpAddr::V4(ip) => add(&ip.octets()),
            std::net::IpAddr::V6(ip) => add(&ip.octets()),
        },
        HashPart::Method => add(request.method().as_str().as_bytes()),
        HashPart::Header(name) => {
            for value in request.headers().get_all(name) {
                add(value.as_bytes());
            }
        }
        HashPart::Argument(name) => {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let found = pairs.into_iter().find(|(found, _)| *found == &**name);
            add(found.map_or("", |(_, value)| value).as_bytes());
        }
        HashPart::Cookie(name) => {
            let found = cookies::find(request.headers(), name);
            add(found.unwrap_or_default().as_bytes());
        }
    }
}
