//! Names and certificates of clients as text, in the forms that nginx gives to backends.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use x509_parser::der_parser::asn1_rs::{Tag, ToDer};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate, X509Name};

/// Characters of a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

/// Who a certificate says that somebody is, and who vouches for that.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    /// The subject's name (RFC 2253).
    pub(crate) subject: String,
    /// The issuer's name (RFC 2253).
    pub(crate) issuer: String,
}

impl Identity {
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Self {
        // The handshake has parsed it.
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self::default();
        };
        Self {
            subject: rfc2253(certificate.subject()),
            issuer: rfc2253(certificate.issuer()),
        }
    }
}

/// A name in the form of RFC 2253: the last part first, specials escaped, so that a value cannot
/// pretend to be another part of the name. Bytes outside of ASCII are written in digits.
fn rfc2253(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (at, part) in parts.into_iter().rev().enumerate() {
        for (and, attribute) in part.iter().enumerate() {
            match (at, and) {
                (0, 0) => {}
                (_, 0) => text.push(','),
                _ => text.push('+'),
            }
            write_attribute(attribute, &mut text);
        }
    }
    text
}

fn write_attribute(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let is_text = [
        Tag::Utf8String,
        Tag::PrintableString,
        Tag::Ia5String,
        Tag::TeletexString,
        Tag::BmpString,
        Tag::UniversalString,
    ]
    .contains(&attribute.attr_value().tag());
    match (short_name(attribute.attr_type()), attribute.as_str()) {
        (Some(name), Ok(value)) if is_text => {
            text.push_str(name);
            text.push('=');
            write_value(value, text);
        }
        (name, _) => {
            let oid = attribute.attr_type().to_id_string();
            text.push_str(name.unwrap_or(&oid));
            text.push_str("=#");
            let der = attribute.attr_value().to_der_vec().unwrap_or_default();
            for byte in der {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02X}");
            }
        }
    }
}

fn write_value(value: &str, text: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let is_special = matches!(byte, b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';')
            || (byte == b'#' && at == 0)
            || (byte == b' ' && (at == 0 || at == last));
        if is_special {
            text.push('\\');
            text.push(char::from(byte));
        } else if byte.is_ascii_graphic() || byte == b' ' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "\\{byte:02X}");
        }
    }
}

/// The name of an attribute's type in OpenSSL's short form.
fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    Some(match oid.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// A certificate in PEM format, with everything but unreserved characters (RFC 3986) escaped.
pub(super) fn escaped_pem(certificate: &CertificateDer<'_>) -> Option<HeaderValue> {
    let encoded = STANDARD.encode(certificate);
    let mut pem = String::with_capacity(encoded.len() * 5 / 4);
    let mut escape = |part: &str| {
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                pem.push(char::from(byte));
            } else {
                let _ = write!(pem, "%{byte:02X}");
            }
        }
    };
    escape("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII.
        let (line, behind) = rest.split_at(rest.len().min(PEM_LINE));
        escape(line);
        escape("\n");
        rest = behind;
    }
    escape("-----END CERTIFICATE-----\n");
    HeaderValue::try_from(pem).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn subject(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Identity::of(made.der()).subject
    }

    #[test]
    fn ingress_a16_names_are_written_as_rfc_2253_says() {
        use DnType::{CommonName, CountryName, CustomDnType, OrganizationName};
        let rare = CustomDnType(vec![1, 2, 3, 4]);
        for (parts, want) in [
            (
                &[
                    (CountryName, "DE"),
                    (OrganizationName, "A B"),
                    (CommonName, "c"),
                ][..],
                "CN=c,O=A B,C=DE",
            ),
            (&[(CommonName, "a,CN=admin")], "CN=a\\,CN=admin"),
            (&[(CommonName, " #a+b\\ ")], "CN=\\ #a\\+b\\\\\\ "),
            (&[(CommonName, "#a\r\nX: y")], "CN=\\#a\\0D\\0AX: y"),
            (&[(CommonName, "é")], "CN=\\C3\\A9"),
            (&[(rare, "x")], "1.2.3.4=#0C0178"),
            (&[], ""),
        ] {
            assert_eq!(subject(parts), want);
        }
    }

    #[test]
    fn ingress_a16_a_certificate_is_passed_on_in_escaped_pem() {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let value = escaped_pem(made.cert.der()).unwrap();
        let text = value.to_str().unwrap();
        assert!(
            text.starts_with("-----BEGIN%20CERTIFICATE-----%0A"),
            "{text}"
        );
        let plain = text.replace("%20", " ").replace("%0A", "\n");
        let plain = plain
            .replace("%2B", "+")
            .replace("%2F", "/")
            .replace("%3D", "=");
        assert_eq!(plain, made.cert.pem().replace("\r\n", "\n"));
    }
}
