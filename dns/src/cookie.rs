//! DNS cookies (RFC 7873) in the form of RFC 9018.
//!
//! A client sends eight bytes of its own and gets them back with sixteen of ours, so that it can tell
//! a reply from one that somebody made up who does not see its queries. Ours say when they were made
//! and are a keyed hash of that, the client's cookie and its address.
//!
//! They are not checked when they come back: nothing here is refused to a client without one, and
//! each reply carries a new one.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::message::{CLIENT_COOKIE, SERVER_COOKIE};

/// Version of the form of our cookies.
const VERSION: u8 = 1;

/// What our cookies are made with.
pub(crate) struct CookieSecret([u64; 2]);

impl fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieSecret")
    }
}

impl CookieSecret {
    /// A new one.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    /// Our cookie for a client now.
    pub(crate) fn cookie(&self, client: &[u8; CLIENT_COOKIE], ip: IpAddr) -> [u8; SERVER_COOKIE] {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        // Serial number arithmetic: the upper bits are left out (RFC 9018 section 4.3).
        self.cookie_at(client, ip, now.map_or(0, |now| now.as_secs() as u32))
    }

    fn cookie_at(
        &self,
        client: &[u8; CLIENT_COOKIE],
        ip: IpAddr,
        seconds: u32,
    ) -> [u8; SERVER_COOKIE] {
        let mut cookie = [0; SERVER_COOKIE];
        cookie[0] = VERSION;
        cookie[4..8].copy_from_slice(&seconds.to_be_bytes());
        let mut input = [0; CLIENT_COOKIE + 8 + 16];
        input[..CLIENT_COOKIE].copy_from_slice(client);
        input[CLIENT_COOKIE..CLIENT_COOKIE + 8].copy_from_slice(&cookie[..8]);
        let address = &mut input[CLIENT_COOKIE + 8..];
        let length = match ip.to_canonical() {
            IpAddr::V4(ip) => {
                address[..4].copy_from_slice(&ip.octets());
                4
            }
            IpAddr::V6(ip) => {
                address.copy_from_slice(&ip.octets());
                16
            }
        };
        let hash = siphash(self.0, &input[..CLIENT_COOKIE + 8 + length]);
        cookie[8..].copy_from_slice(&hash.to_le_bytes());
        cookie
    }
}

/// SipHash-2-4 (Aumasson and Bernstein 2012).
fn siphash([k0, k1]: [u64; 2], input: &[u8]) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut take = |word: u64| {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    };
    let (words, rest) = input.as_chunks::<8>();
    for word in words {
        take(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = input.len() as u8;
    take(u64::from_le_bytes(last));
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<const N: usize>(text: &str) -> [u8; N] {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
    }

    /// The examples of RFC 9018, appendices A.1 and A.4.
    #[test]
    fn dns_edns_cookies_are_those_of_the_rfc() {
        for (secret, client, ip, seconds, expected) in [
            (
                "e5e973e5a6b2a43f48e7dc849e37bfcf",
                "2464c4abcf10c957",
                "198.51.100.100",
                1_559_731_985,
                "010000005cf79f111f8130c3eee29480",
            ),
            (
                "445536bcd2513298075a5d379663c962",
                "22681ab97d52c298",
                "2001:db8:220:1:59de:d0f4:8769:82b8",
                1_559_741_961,
                "010000005cf7c609a6bb79d16625507a",
            ),
        ] {
            let secret: [u8; 16] = hex(secret);
            let half = |at: usize| u64::from_le_bytes(secret[at..at + 8].try_into().unwrap());
            let secret = CookieSecret([half(0), half(8)]);
            let cookie = secret.cookie_at(&hex(client), ip.parse().unwrap(), seconds);
            assert_eq!(cookie, hex(expected), "{client}");
        }
    }
}
