//! Authentication: by password (`auth-type`) and by asking a service (`auth-url`).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, header};

use super::{Reader, redirect};
use crate::compile::store::ObjectKey;
use crate::model::{AuthCache, AuthPlace, ExternalAuth, KeyPart, Template};

mod cache;
mod place;

use cache::{durations, key};
use place::url;

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
    /// The ConfigMap with fields of the question.
    pub(in crate::compile) question_headers: Option<ObjectKey>,
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
    question_headers: Option<ObjectKey>,
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
            "auth-secret" => {
                self.auth.secret = self.or_refuse(name, object(self.key, "Secret", value))
            }
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
                let read = object(self.key, "ConfigMap", value);
                self.auth.question_headers = self.or_refuse(name, read);
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
            headers: Box::default(),
            signin: signin.and_then(Result::ok),
            redirect: draft.redirect,
            always_set_cookie: draft.always_set_cookie,
            cache: cache.map(|(key, durations)| AuthCache { key, durations }),
        });
        let is_external = external.is_some();
        let record = AuthRecord {
            basic,
            external,
            question_headers: draft.question_headers.filter(|_| is_external),
            any: draft.any,
        };
        let is_asked = record.basic.is_some() || record.external.is_some();
        self.policy.auth = is_asked.then(|| Arc::new(record));
    }
}

/// An object of this kind as `NAME` or `NAMESPACE/NAME`.
pub(super) fn object(ingress: &ObjectKey, kind: &str, text: &str) -> Result<ObjectKey, String> {
    let (namespace, name) = text.split_once('/').unwrap_or((&ingress.namespace, text));
    let is_name = |text: &str| {
        let is_in_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
        (1..=253).contains(&text.len()) && text.bytes().all(is_in_name)
    };
    if is_name(namespace) && is_name(name) {
        Ok(ObjectKey::new(namespace, name))
    } else {
        Err(format!("`{text}` is not the name of a {kind}"))
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
pub(in crate::compile) fn is_of_message(name: &HeaderName) -> bool {
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
