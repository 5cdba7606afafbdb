//! Certificates for manifests.

use std::time::{Duration, SystemTime};

/// A day.
const DAY: u64 = 86_400;

/// A certificate for a host and its key, in PEM, with an end of validity in days from now.
pub(crate) fn certificate(host: &str, days: i64) -> (String, String) {
    let names = vec![host.to_owned()];
    let mut params = rcgen::CertificateParams::new(names).expect("a host name");
    let now = SystemTime::now();
    // A minute more, so that the number of whole days does not depend on the time of the test.
    let distance = Duration::from_secs(days.unsigned_abs() * DAY + 60);
    let end = if days < 0 {
        now - distance
    } else {
        now + distance
    };
    params.not_before = (now - Duration::from_secs(400 * DAY)).into();
    params.not_after = end.into();
    let key = rcgen::KeyPair::generate().expect("a key");
    let made = params.self_signed(&key).expect("a certificate");
    (made.pem(), key.serialize_pem())
}

/// The manifest of a Secret that holds them.
pub(crate) fn secret(name: &str, kind: &str, (crt, key): &(String, String)) -> String {
    let indent = |text: &str| text.trim().replace('\n', "\n    ");
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: {kind}\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indent(crt),
        indent(key)
    )
}
