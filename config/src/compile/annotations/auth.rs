//! Authentication: by password (`auth-type`) and by asking a service (`auth-url`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, header};

use super::{Reader, redirect};
use crate::compile::store::ObjectKey;
use crate::model::{
    AuthCache, AuthPlace, Backend, ExternalAuth, KeyPart, Part, ServiceKey, Template,
};

/// What is said to clients if no `auth-realm` says otherwise.
const REALM: &str = "Authentication Required";

/// For how long answers are kept if `auth-cache-duration` says nothing.
const DURATIONS: &str = "200 202 401 5m";

/// How connections to the service are kept is not for Ingresses to say.
const KEEPALIVE: [&str; 4] = [
    "auth-keepalive",
    "auth-keepalive-requests",
    "auth-keepalive-share-vars",
    "auth-keepalive-timeout",
];

/// Whether an annotation is about authentication.
pub(super) fn is(name: &str) -> bool {
    KEEPALIVE.contains(&name)
        || matches!(
            name,
            "auth-always-set-cookie"
                | "auth-cache-duration"
                | "auth-cache-key"
                | "auth-method"
                | "auth-proxy-set-headers"
                | "auth-realm"
                | "auth-request-redirect"
                | "auth-response-headers"
                | "auth-secret"
                | "auth-secret-type"
                | "auth-signin"
                | "auth-signin-redirect-param"
                | "auth-type"
                | "auth-url"
                | "satisfy"
        )
}

/// What the annotations of an Ingress ask clients to prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::compile) struct AuthRecord {
    pub(in crate::compile) basic: Option<BasicRecord>,
    pub(in crate::compile) external: Option<ExternalAuth>,
    /// One of them is enough.
    pub(in crate::compile) any: bool,
}

/// HTTP Basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::compile) struct BasicRecord {
    pub(in crate::compile) realm: Arc<str>,
    /// The Secret with the users.
    pub(in crate::compile) secret: ObjectKey,
    pub(in crate::compile) form: UserForm,
}

/// How a Secret lists users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::compile) enum UserForm {
    /// An htpasswd file under the key `auth`.
    #[default]
    File,
    /// Each key a user.
    Map,
}

/// What has been read so far.
#[derive(Default)]
pub(super) struct Draft {
    basic: bool,
    secret: Option<ObjectKey>,
    form: UserForm,
    realm: Option<Arc<str>>,
    /// The annotations that mean nothing without `auth-url`.
    of_url: Vec<String>,
    url: Option<(AuthPlace, Template)>,
    method: Option<Method>,
    signin: Option<String>,
    signin_param: Option<String>,
    redirect: Option<Template>,
    response_headers: Box<[HeaderName]>,
    always_set_cookie: bool,
    cache_key: Option<Box<[KeyPart]>>,
    cache_durations: Option<Box<[(StatusCode, Duration)]>>,
    any: bool,
}

impl Reader<'_> {
    pub(super) fn auth(&mut self, name: &str, value: &str) {
        match name {
            _ if KEEPALIVE.contains(&name) => {
                self.without_effect.push(format!("{}{name}", super::PREFIX));
            }
            "auth-type" => {
                let read = match value.to_ascii_lowercase().as_str() {
                    "basic" => Ok(true),
                    _ => Err(format!("`{value}` is not `basic`, the only type there is")),
                };
                self.auth.basic = self.or_refuse(name, read).unwrap_or(true);
            }
            "auth-secret" => self.auth.secret = self.or_refuse(name, secret(self.key, value)),
            "auth-secret-type" => {
                let read = match value {
                    "auth-file" => Ok(UserForm::File),
                    "auth-map" => Ok(UserForm::Map),
                    _ => Err(format!("`{value}` is neither auth-file nor auth-map")),
                };
                self.auth.form = self.or_refuse(name, read).unwrap_or_default();
            }
            "auth-realm" => self.auth.realm = self.or_report(name, realm(value)),
            "satisfy" => {
                let read = match value {
                    "any" => Ok(true),
                    "all" => Ok(false),
                    _ => Err(format!("`{value}` is neither any nor all")),
                };
                self.auth.any = self.or_report(name, read).unwrap_or(false);
            }
            _ => self.external(name, value),
        }
    }

    fn external(&mut self, name: &str, value: &str) {
        if name != "auth-url" {
            self.auth.of_url.push(format!("{}{name}", super::PREFIX));
        }
        match name {
            "auth-url" => self.auth.url = self.or_refuse(name, url(value)),
            "auth-method" => self.auth.method = self.or_refuse(name, method(value)),
            "auth-signin" => {
                let is_good = redirect::location(value).map(|_template| value.to_owned());
                self.auth.signin = self.or_refuse(name, is_good);
            }
            "auth-signin-redirect-param" => {
                self.auth.signin_param = self.or_refuse(name, parameter(value));
            }
            "auth-response-headers" => {
                let read = headers(value);
                self.auth.response_headers = self.or_refuse(name, read).unwrap_or_default();
            }
            "auth-request-redirect" => {
                self.auth.redirect = self.or_refuse(name, redirect::template(value));
            }
            "auth-always-set-cookie" => {
                self.auth.always_set_cookie = self.switch(name, value, false);
            }
            "auth-cache-key" => self.auth.cache_key = self.or_report(name, key(value)),
            "auth-cache-duration" => {
                self.auth.cache_durations = self.or_report(name, durations(value));
            }
            _ => {
                let why = "fields of the question cannot be taken from a ConfigMap".to_owned();
                self.or_refuse::<()>(name, Err(why));
            }
        }
    }

    /// Puts together what was read. What is there by half closes the Ingress: its author meant to
    /// close it.
    pub(super) fn finish_auth(&mut self) {
        let draft = std::mem::take(&mut self.auth);
        let basic = match (draft.basic, draft.secret) {
            (true, Some(secret)) => Some(BasicRecord {
                realm: draft.realm.unwrap_or_else(|| REALM.into()),
                secret,
                form: draft.form,
            }),
            (true, None) => {
                let why = "there is no auth-secret with the users".to_owned();
                self.or_refuse::<()>("auth-type", Err(why));
                None
            }
            (false, Some(_)) => {
                let why = "there is no auth-type that says what the Secret is for".to_owned();
                self.or_refuse::<()>("auth-secret", Err(why));
                None
            }
            (false, None) => None,
        };
        if draft.url.is_none() && !draft.of_url.is_empty() {
            self.report(
                "without effect, because there is no auth-url",
                &draft.of_url,
            );
        }
        let durations = draft.cache_durations.or_else(|| durations(DURATIONS).ok());
        let cache = draft.cache_key.zip(durations);
        let signin = draft.signin.map(|signin| {
            let param = draft.signin_param.as_deref().unwrap_or("rd");
            redirect::location(&with_way_back(&signin, param))
        });
        let external = draft.url.map(|(place, path)| ExternalAuth {
            place,
            path,
            method: draft.method.unwrap_or(Method::GET),
            response_headers: draft.response_headers,
            signin: signin.and_then(Result::ok),
            redirect: draft.redirect,
            always_set_cookie: draft.always_set_cookie,
            cache: cache.map(|(key, durations)| AuthCache { key, durations }),
        });
        let record = AuthRecord {
            basic,
            external,
            any: draft.any,
        };
        let is_asked = record.basic.is_some() || record.external.is_some();
        self.policy.auth = is_asked.then(|| Arc::new(record));
    }
}

/// `NAME` or `NAMESPACE/NAME`.
fn secret(ingress: &ObjectKey, text: &str) -> Result<ObjectKey, String> {
    let (namespace, name) = text.split_once('/').unwrap_or((&ingress.namespace, text));
    let is_name = |text: &str| {
        let is_in_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        (1..=253).contains(&text.len()) && text.bytes().all(is_in_name)
    };
    if is_name(namespace) && is_name(name) {
        Ok(ObjectKey::new(namespace, name))
    } else {
        Err(format!("`{text}` is not the name of a Secret"))
    }
}

/// A realm is sent within quotation marks (RFC 9110, 11.5).
fn realm(text: &str) -> Result<Arc<str>, String> {
    if text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        Ok(text.into())
    } else {
        Err("only ASCII characters can be sent".to_owned())
    }
}

/// Where the service is, and path and query there.
fn url(text: &str) -> Result<(AuthPlace, Template), String> {
    let (tls, rest) = if let Some(rest) = text.strip_prefix("https://") {
        (true, rest)
    } else if let Some(rest) = text.strip_prefix("http://") {
        (false, rest)
    } else {
        return Err(format!("`{text}` is not a URL with http or https"));
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = match path.bytes().next() {
        Some(b'/') => redirect::template(path)?,
        None => redirect::template("/")?,
        Some(b'?') => redirect::template(&format!("/{path}"))?,
        Some(_) => return Err(format!("`{text}` has a fragment")),
    };
    Ok((place(authority, tls)?, path))
}

fn place(authority: &str, tls: bool) -> Result<AuthPlace, String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => {
            let bad = || format!("`{port}` is not a port");
            (host, port.parse::<u16>().map_err(|_not_a_port| bad())?)
        }
        None => (authority, if tls { 443 } else { 80 }),
    };
    if let Some(service) = service(host) {
        return Ok(AuthPlace::Service {
            backend: Backend { service, port },
            host: authority.into(),
            tls,
        });
    }
    let is_known =
        matches!(port, 80 | 443) && host.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
    let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-._${}".contains(&b);
    let is_name = host.contains(['.', '$']);
    if !is_known || !is_name || !host.bytes().all(is_host) {
        return Err(format!(
            "`{authority}` is neither a Service (NAME.NAMESPACE.svc.cluster.local:PORT) nor a host \
             that this gateway serves"
        ));
    }
    let template = redirect::template(host)?;
    let is_of_host = |part: &Part| matches!(part, Part::Text(_) | Part::Host | Part::HostAndPort);
    if !template.0.iter().all(is_of_host) {
        return Err(format!(
            "`{host}` takes more than the host from the request"
        ));
    }
    Ok(AuthPlace::Host(template))
}

/// The Service with this name in the cluster's DNS.
fn service(host: &str) -> Option<ServiceKey> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let host = host.strip_suffix(".cluster.local").unwrap_or(host);
    let (name, namespace) = host.strip_suffix(".svc")?.split_once('.')?;
    let is_label = |text: &str| {
        let is_in_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !text.is_empty() && text.bytes().all(is_in_label)
    };
    (is_label(name) && is_label(namespace)).then(|| ServiceKey {
        namespace: namespace.into(),
        name: name.into(),
    })
}

fn method(text: &str) -> Result<Method, String> {
    match text {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => {
            Method::from_bytes(text.as_bytes()).map_err(|error| error.to_string())
        }
        _ => Err(format!(
            "`{text}` is not a method that a service can be asked with"
        )),
    }
}

/// The name of a parameter in a query.
fn parameter(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    if !text.is_empty() && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not the name of a parameter"))
    }
}

/// Where to sign in, with the way back to what was asked for unless it names that itself.
fn with_way_back(signin: &str, param: &str) -> String {
    let query = signin.split_once('?').map(|(_, query)| query);
    let mut names = query.into_iter().flat_map(|query| query.split('&'));
    if names.any(|pair| pair.split('=').next() == Some(param)) {
        return signin.to_owned();
    }
    let sign = if query.is_some() { '&' } else { '?' };
    format!("{signin}{sign}{param}=$scheme://$http_host$escaped_request_uri")
}

/// Fields that a backend may be told in place of the client.
fn headers(text: &str) -> Result<Box<[HeaderName]>, String> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let names = names.map(|name| {
        let field = HeaderName::from_bytes(name.as_bytes());
        let field = field.ok().filter(|field| !is_of_message(field));
        field.ok_or_else(|| format!("`{name}` is not a field that can be passed on"))
    });
    names.collect()
}

/// Fields that say where a message ends, or belong to the connection or the gateway.
fn is_of_message(name: &HeaderName) -> bool {
    let name_text = name.as_str();
    matches!(
        *name,
        header::CONNECTION
            | header::CONTENT_LENGTH
            | header::CONTENT_TYPE
            | header::EXPECT
            | header::HOST
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    ) || name_text.starts_with("x-forwarded-")
        || matches!(name_text, "keep-alive" | "proxy-connection" | "x-real-ip")
}

/// What requests have to have in common to get the same answer.
fn key(text: &str) -> Result<Box<[KeyPart]>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        if !before.is_empty() {
            parts.push(KeyPart::Text(before.into()));
        }
        let (name, behind) = redirect::variable(after)?;
        parts.push(key_part(name).ok_or_else(|| format!("`${name}` is not known here"))?);
        rest = behind;
    }
    if !rest.is_empty() {
        parts.push(KeyPart::Text(rest.into()));
    }
    if parts.is_empty() {
        return Err("the key is empty".to_owned());
    }
    Ok(parts.into())
}

fn key_part(name: &str) -> Option<KeyPart> {
    if let Some(field) = name.strip_prefix("http_") {
        let field = HeaderName::try_from(field.replace('_', "-")).ok()?;
        return Some(KeyPart::Field(field));
    }
    if let Some(cookie) = name.strip_prefix("cookie_") {
        return (!cookie.is_empty()).then(|| KeyPart::Cookie(cookie.into()));
    }
    Some(match name {
        "scheme" => KeyPart::Scheme,
        "host" => KeyPart::Host,
        "request_uri" => KeyPart::RequestUri,
        "request_method" => KeyPart::Method,
        "remote_addr" => KeyPart::Client,
        "remote_user" => KeyPart::User,
        _ => return None,
    })
}

/// Lists of statuses, each with a time behind it: `200 202 5m, 401 30s`.
fn durations(text: &str) -> Result<Box<[(StatusCode, Duration)]>, String> {
    let mut all = Vec::new();
    for group in text.split(',').map(str::trim).filter(|g| !g.is_empty()) {
        let bad = || format!("`{group}` is not a list of statuses and a time, such as 200 401 5m");
        let (statuses, time) = group.rsplit_once(' ').ok_or_else(bad)?;
        let time = duration(time).ok_or_else(bad)?;
        for status in statuses.split_ascii_whitespace() {
            let status: StatusCode = status.parse().map_err(|_not_a_status| bad())?;
            all.push((status, time));
        }
    }
    if all.is_empty() {
        return Err("there is no time".to_owned());
    }
    Ok(all.into())
}

/// A number of seconds, or with `s`, `m`, `h`, `d`; a day at most.
fn duration(text: &str) -> Option<Duration> {
    const LONGEST: u64 = 24 * 3600;
    let digits = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match text.get(digits.len()..)? {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => LONGEST,
        _ => return None,
    };
    let seconds = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    (1..=LONGEST)
        .contains(&seconds)
        .then(|| Duration::from_secs(seconds))
}
