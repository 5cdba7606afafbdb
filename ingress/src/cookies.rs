//! Cookies that a client sends (RFC 6265, 4.2).

use http::HeaderMap;
use http::header::COOKIE;

/// The value of the first cookie with this name. HTTP/2 may split the field (RFC 9113, 8.2.3).
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(COOKIE).into_iter();
    let pairs = fields.filter_map(|field| field.to_str().ok());
    pairs
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .find(|(found, _)| found.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a10_a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        for field in ["a=1; ab=2;b = 3 ;c", "d=x=y; a=4"] {
            headers.append(COOKIE, field.parse().unwrap());
        }
        for (name, value) in [
            ("a", Some("1")),
            ("ab", Some("2")),
            ("b", Some("3")),
            ("c", None),
            ("d", Some("x=y")),
            ("A", None),
            ("", None),
        ] {
            assert_eq!(find(&headers, name), value, "{name}");
        }
    }
}
