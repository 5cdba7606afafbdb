//! What can be asked: a URL, a Service, a name or a code.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use hickory_proto::rr::RecordType;
use http::{HeaderName, HeaderValue, Method, Uri};
use sealane_config::model::ServiceKey;

/// The namespace where none is given.
pub(super) const DEFAULT_NAMESPACE: &str = "default";

/// Fields of a request that can be given at most; a request has no more either.
const MAX_HEADERS: usize = 100;

/// Longest text that is looked at: the longest target that the gateway takes.
const MAX_TEXT: usize = 16 * 1024;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// A request to the gateway.
    Url(UrlQuery),
    /// A connection to a Service.
    Service(ServiceQuery),
    /// A DNS query.
    Name(NameQuery),
}

/// A request to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlQuery {
    /// As typed.
    pub(crate) text: String,
    /// Over TLS.
    pub(crate) secure: bool,
    /// Host, and port if it was given: the `Host` field, and the server name of TLS.
    pub(crate) authority: String,
    /// Path and query, from `/` on.
    pub(crate) target: String,
    /// The method.
    pub(crate) method: Method,
    /// More fields.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Who sends it.
    pub(crate) client: IpAddr,
}

/// A connection to a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceQuery {
    /// The Service.
    pub(crate) key: ServiceKey,
    /// The port by number or name; `None`: all of them.
    pub(crate) port: Option<String>,
}

/// A DNS query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameQuery {
    /// As typed.
    pub(crate) name: String,
    /// The record type.
    pub(crate) record_type: RecordType,
    /// The namespace of the pod that asks; `None`: nobody in particular.
    pub(crate) from_namespace: Option<String>,
}

/// What the options say besides the question itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// Method of a request.
    pub(crate) method: Option<String>,
    /// Fields of a request, `Name: value`.
    pub(crate) headers: Vec<String>,
    /// Address of the client that sends a request.
    pub(crate) client: Option<IpAddr>,
    /// Namespace of a Service that is named without one.
    pub(crate) namespace: Option<String>,
    /// Record type of a name.
    pub(crate) record_type: Option<String>,
    /// Namespace of the pod that asks for a name.
    pub(crate) from_namespace: Option<String>,
}

impl Query {
    /// Reads a question. What has `://` is a URL, what has a `/` a Service (or a URL, if what is
    /// before it cannot be a namespace), everything else a name.
    ///
    /// # Errors
    /// What cannot be understood, in one sentence.
    pub(crate) fn parse(text: &str, details: &Details) -> Result<Self, String> {
        if text.len() > MAX_TEXT || details.headers.len() > MAX_HEADERS {
            return Err("the question is too long".to_owned());
        }
        if text.is_empty() || text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(format!(
                "`{}` has spaces or nothing in it",
                text.escape_debug()
            ));
        }
        if text.contains("://") {
            return url(text, details).map(Self::Url);
        }
        match text.split_once('/') {
            Some((first, _)) if first.contains(['.', ':']) => {
                url(&format!("http://{text}"), details).map(Self::Url)
            }
            Some((first, rest)) => service(first, rest, details).map(Self::Service),
            None => name(text, details).map(Self::Name),
        }
    }

    /// The question as the query string of `/debug/explain`.
    pub(crate) fn encode(text: &str, details: &Details) -> String {
        let mut out = form_urlencoded::Serializer::new(String::new());
        out.append_pair("q", text);
        let fields = [
            ("method", &details.method),
            ("namespace", &details.namespace),
            ("type", &details.record_type),
            ("from", &details.from_namespace),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                out.append_pair(name, value);
            }
        }
        if let Some(client) = details.client {
            out.append_pair("client", &client.to_string());
        }
        for header in &details.headers {
            out.append_pair("header", header);
        }
        out.finish()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// As [`Self::parse`]; also a field that does not exist.
    pub(crate) fn decode(query: &str) -> Result<Self, String> {
        if query.len() > 4 * MAX_TEXT {
            return Err("the question is too long".to_owned());
        }
        let mut text = None;
        let mut details = Details::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                "q" => text = Some(value),
                "method" => details.method = Some(value),
                "header" => details.headers.push(value),
                "client" => {
                    let client = value.parse();
                    let client = client.map_err(|_bad| "`client` is not an address".to_owned());
                    details.client = Some(client?);
                }
                "namespace" => details.namespace = Some(value),
                "type" => details.record_type = Some(value),
                "from" => details.from_namespace = Some(value),
                other => return Err(format!("there is no parameter `{}`", other.escape_debug())),
            }
        }
        let text = text.ok_or("give the parameter q: a URL, a Service or a name")?;
        Self::parse(&text, &details)
    }
}

fn url(text: &str, details: &Details) -> Result<UrlQuery, String> {
    let bad = |why: &str| format!("`{text}` is not a URL: {why}");
    // Scheme and authority are read by the library; the path is kept as it was typed, because what
    // is odd about it is the gate's business.
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err(bad("only http:// and https:// are known")),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let target = target.split('#').next().unwrap_or_default();
    let target = match target.strip_prefix('?') {
        Some(query) => format!("/?{query}"),
        None if target.is_empty() => "/".to_owned(),
        None => target.to_owned(),
    };
    let parsed = Uri::builder()
        .scheme(if secure { "https" } else { "http" })
        .authority(authority)
        .path_and_query("/")
        .build();
    let parsed = parsed.map_err(|error| bad(&error.to_string()))?;
    if parsed.host().is_none_or(str::is_empty) {
        return Err(bad("it has no host"));
    }
    if authority.contains('@') {
        return Err(bad("a user name has no place in it"));
    }
    let method = details.method.as_deref().unwrap_or("GET");
    let method = Method::from_str(method).map_err(|_bad| format!("`{method}` is not a method"))?;
    let mut headers = Vec::with_capacity(details.headers.len());
    for header in &details.headers {
        let parts = header.split_once(':');
        let parsed = parts.and_then(|(name, value)| {
            let name = HeaderName::from_str(name.trim()).ok()?;
            Some((name, HeaderValue::from_str(value.trim()).ok()?))
        });
        headers
            .push(parsed.ok_or_else(|| format!("`{header}` is not a field: give `Name: value`"))?);
    }
    Ok(UrlQuery {
        text: text.to_owned(),
        secure,
        authority: authority.to_owned(),
        target,
        method,
        headers,
        client: details.client.unwrap_or(Ipv4Addr::LOCALHOST.into()),
    })
}

/// `svc/NAME`, `service/NAME` or `NAMESPACE/NAME`, each with `:PORT` or without.
fn service(first: &str, rest: &str, details: &Details) -> Result<ServiceQuery, String> {
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => (name, Some(port.to_owned())),
        None => (rest, None),
    };
    let by_kind = matches!(first, "svc" | "service" | "services");
    let namespace = if by_kind {
        details.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
    } else {
        first
    };
    let plain = |text: &str| !text.is_empty() && !text.contains(['/', ':', '?', '#']);
    if !plain(name) || !plain(namespace) || port.as_deref().is_some_and(|port| !plain(port)) {
        return Err(format!(
            "`{first}/{rest}` is not a Service: give NAMESPACE/NAME, svc/NAME, and :PORT if you like"
        ));
    }
    Ok(ServiceQuery {
        key: ServiceKey {
            namespace: namespace.into(),
            name: name.into(),
        },
        port,
    })
}

fn name(text: &str, details: &Details) -> Result<NameQuery, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(NameQuery {
            name: reverse(addr),
            record_type: RecordType::PTR,
            from_namespace: None,
        });
    }
    let record_type = details.record_type.as_deref().unwrap_or("A");
    let parsed = RecordType::from_str(&record_type.to_ascii_uppercase());
    Ok(NameQuery {
        name: text.to_owned(),
        record_type: parsed.map_err(|_unknown| format!("`{record_type}` is not a record type"))?,
        from_namespace: details.from_namespace.clone(),
    })
}

/// The name under which an address has its names (RFC 1035 section 3.5, RFC 3596 section 2.5).
fn reverse(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", u128::from(ip));
            let nibbles: Vec<String> = digits.chars().rev().map(String::from).collect();
            format!("{}.ip6.arpa.", nibbles.join("."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Query, String> {
        Query::parse(text, &Details::default())
    }

    #[test]
    fn questions_are_told_apart() {
        let host = |text: &str| match parse(text) {
            Ok(Query::Url(url)) => format!("{} {} {}", url.secure, url.authority, url.target),
            Ok(Query::Service(service)) => {
                format!("{} {}", service.key, service.port.unwrap_or_default())
            }
            Ok(Query::Name(name)) => name.name,
            Err(error) => format!("error: {error}"),
        };
        for (text, expected) in [
            ("https://Shop.example.com", "true Shop.example.com /"),
            ("http://a:8080/x?y=1#z", "false a:8080 /x?y=1"),
            ("http://a?y", "false a /?y"),
            ("http://a/x/../%2e", "false a /x/../%2e"),
            ("shop.example.com/cart", "false shop.example.com /cart"),
            ("localhost:8080/cart", "false localhost:8080 /cart"),
            ("default/api", "default/api "),
            ("default/api:80", "default/api 80"),
            ("svc/api:http", "default/api http"),
            ("api.default", "api.default"),
            ("api", "api"),
            ("10.96.0.1", "1.0.96.10.in-addr.arpa."),
        ] {
            assert_eq!(host(text), expected, "{text}");
        }
        for text in [
            "",
            "a b",
            "ftp://a/",
            "http:///x",
            "http://u@a/",
            "a/b/c",
            "/x",
            "a/",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_question_survives_the_query_string() {
        let details = Details {
            method: Some("POST".into()),
            headers: vec!["Host: a&b=c".into(), "X: ü%".into()],
            client: Some("2001:db8::1".parse().unwrap()),
            namespace: Some("shop".into()),
            record_type: None,
            from_namespace: Some("x y".into()),
        };
        let text = "http://a/x?y=1&z=%20+";
        let direct = Query::parse(text, &details);
        assert_eq!(Query::decode(&Query::encode(text, &details)), direct);
        assert!(Query::decode("q=a&nope=1").is_err());
        assert!(Query::decode("").is_err());
    }
}
