//! Answers in place of errors: `custom-http-errors`, `default-backend`,
//! `disable-proxy-intercept-errors`.

use std::sync::Arc;

use http::StatusCode;

use super::Reader;

/// What an Ingress says about errors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct ErrorRecord {
    /// Which errors are answered by somebody else.
    pub(in crate::compile) statuses: Option<Box<[StatusCode]>>,
    /// The Service that answers them, of the Ingress' namespace.
    pub(in crate::compile) backend: Option<Arc<str>>,
    /// Those of backends are not.
    pub(in crate::compile) own_only: Option<bool>,
}

/// Whether an annotation is read here.
pub(super) fn is(name: &str) -> bool {
    matches!(
        name,
        "custom-http-errors" | "default-backend" | "disable-proxy-intercept-errors"
    )
}

impl Reader<'_> {
    pub(super) fn errors(&mut self, name: &str, value: &str) {
        match name {
            "custom-http-errors" => {
                self.errors.statuses = self.or_report(name, statuses(value));
            }
            "default-backend" => {
                self.errors.backend = self.or_report(name, service(value));
            }
            _ => self.errors.own_only = Some(self.switch(name, value, false)),
        }
    }
}

/// Statuses from 400 to 599, separated by commas.
pub(in crate::compile) fn statuses(text: &str) -> Result<Box<[StatusCode]>, String> {
    let statuses = text.split(',').map(str::trim).filter(|s| !s.is_empty());
    let status = |text: &str| {
        let status = text.parse::<StatusCode>().ok();
        let status = status.filter(|s| s.is_client_error() || s.is_server_error());
        status.ok_or_else(|| format!("`{text}` is not a status from 400 to 599"))
    };
    statuses.map(status).collect()
}

/// The name of a Service (RFC 1035 label).
fn service(text: &str) -> Result<Arc<str>, String> {
    let is_in_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=63).contains(&text.len()) && text.bytes().all(is_in_label) {
        Ok(text.into())
    } else {
        Err(format!(
            "`{text}` is not the name of a Service of the Ingress' namespace"
        ))
    }
}
