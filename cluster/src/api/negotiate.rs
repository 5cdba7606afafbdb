//! Which form an answer takes (T2): the first entry of `Accept` that we can produce.

use http::HeaderMap;
use http::header::ACCEPT;

use super::status::ApiError;

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The object as JSON.
    Json,
    /// The object as YAML.
    Yaml,
    /// `meta/v1 Table`, for people.
    Table,
    /// `PartialObjectMetadata` or its list.
    Metadata,
    /// `apidiscovery.k8s.io/v2 APIGroupDiscoveryList`.
    AggregatedDiscovery,
}

/// Where an answer is produced; decides which forms are possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Objects and lists.
    Objects,
    /// Watches: no YAML.
    Watch,
    /// `/api` and `/apis`.
    Discovery,
}

/// Chooses the form.
///
/// # Errors
/// 406 if nothing acceptable can be produced.
pub(crate) fn format(headers: &HeaderMap, offer: Offer) -> Result<Format, ApiError> {
    let mut asked = false;
    for header in headers.get_all(ACCEPT) {
        let Ok(text) = header.to_str() else { continue };
        for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            asked = true;
            if let Some(format) = supported(entry, offer) {
                return Ok(format);
            }
        }
    }
    if asked {
        Err(ApiError::not_acceptable())
    } else {
        Ok(Format::Json)
    }
}

fn supported(entry: &str, offer: Offer) -> Option<Format> {
    let mut parts = entry.split(';').map(str::trim);
    let media_type = parts.next()?.to_ascii_lowercase();
    let mut form = None;
    let mut version = None;
    let mut group = None;
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => form = Some(value),
            Some(("v", value)) => version = Some(value),
            Some(("g", value)) => group = Some(value),
            _ => {}
        }
    }
    let plain = match media_type.as_str() {
        "application/json" | "application/*" | "*/*" => Format::Json,
        "application/yaml" if offer == Offer::Objects => Format::Yaml,
        _ => return None,
    };
    match (form, group, version, offer) {
        (None, ..) => Some(plain),
        (Some("Table"), Some("meta.k8s.io"), Some("v1"), Offer::Objects | Offer::Watch) => {
            Some(Format::Table)
        }
        (
            Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
            Some("meta.k8s.io"),
            Some("v1"),
            Offer::Objects | Offer::Watch,
        ) => Some(Format::Metadata),
        (
            Some("APIGroupDiscoveryList"),
            Some("apidiscovery.k8s.io"),
            Some("v2"),
            Offer::Discovery,
        ) => Some(Format::AggregatedDiscovery),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const OLD_TABLE: &str = "application/json;as=Table;v=v1beta1;g=meta.k8s.io";
    const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

    #[test]
    fn cluster_t2_first_supported_accept_entry_wins() {
        let tables = format!("{TABLE},{OLD_TABLE},application/json");
        let old_tables = format!("{OLD_TABLE},application/json");
        let discovery = format!("{DISCOVERY},application/json");
        for (accept, offer, expected) in [
            ("", Offer::Objects, Some(Format::Json)),
            ("application/json, */*", Offer::Objects, Some(Format::Json)),
            (tables.as_str(), Offer::Objects, Some(Format::Table)),
            (tables.as_str(), Offer::Watch, Some(Format::Table)),
            (old_tables.as_str(), Offer::Objects, Some(Format::Json)),
            (
                discovery.as_str(),
                Offer::Discovery,
                Some(Format::AggregatedDiscovery),
            ),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Offer::Objects,
                Some(Format::Json),
            ),
            (
                "application/vnd.kubernetes.protobuf, */*",
                Offer::Objects,
                Some(Format::Json),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Offer::Objects,
                Some(Format::Metadata),
            ),
            ("application/yaml", Offer::Objects, Some(Format::Yaml)),
            ("application/yaml", Offer::Watch, None),
            ("application/vnd.kubernetes.protobuf", Offer::Objects, None),
            ("text/html", Offer::Objects, None),
        ] {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(format(&headers, offer).ok(), expected, "{accept} {offer:?}");
        }
    }
}
