//! Clients that take `SameSite=None` for something else, and would not send the cookie back or would
//! refuse it: those of the Chromium project's list of incompatible clients.

/// Whether a client with this `User-Agent` is one of them.
pub(crate) fn none_is_misread(agent: &str) -> bool {
    takes_it_for_strict(agent) || refuses_it(agent)
}

/// iOS 12, and Safari and embedded browsers of macOS 10.14.
fn takes_it_for_strict(agent: &str) -> bool {
    let is_ios_12 =
        agent.contains("iP") && agent.contains("OS 12_") && agent.contains("like Mac OS X");
    let is_macos_10_14 = agent.contains("Mac OS X 10_14");
    let is_chromium = agent.contains("Chrome/") || agent.contains("Chromium/");
    let is_safari = agent.contains("Version/") && agent.contains("Safari/") && !is_chromium;
    let is_embedded = agent.ends_with("(KHTML, like Gecko)");
    is_ios_12 || is_macos_10_14 && (is_safari || is_embedded)
}

/// Chromium 51 to 66, and UC Browser below 12.13.2.
fn refuses_it(agent: &str) -> bool {
    if let Some(version) = version(agent, "UCBrowser/") {
        return version < [12, 13, 2];
    }
    let chromium = version(agent, "Chrome/").or_else(|| version(agent, "Chromium/"));
    chromium.is_some_and(|[major, ..]| (51..=66).contains(&major))
}

/// The first three numbers of the version behind a product's name.
fn version(agent: &str, product: &str) -> Option<[u32; 3]> {
    let (_, rest) = agent.split_once(product)?;
    let text = rest.split([' ', ';', ')']).next()?;
    let mut numbers = text.split('.').map_while(|number| number.parse().ok());
    let major = numbers.next()?;
    Some([
        major,
        numbers.next().unwrap_or(0),
        numbers.next().unwrap_or(0),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingress_a11_clients_that_misread_samesite_none() {
        let webkit = "AppleWebKit/605.1.15 (KHTML, like Gecko)";
        for (agent, misread) in [
            (
                format!(
                    "Mozilla/5.0 (iPhone; CPU iPhone OS 12_4 like Mac OS X) {webkit} Mobile/15E148"
                ),
                true,
            ),
            (
                format!(
                    "Mozilla/5.0 (iPhone; CPU iPhone OS 13_1 like Mac OS X) {webkit} Mobile/15E148"
                ),
                false,
            ),
            (
                format!(
                    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) {webkit} Version/12.1 Safari/605.1.15"
                ),
                true,
            ),
            (
                format!("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) {webkit}"),
                true,
            ),
            (
                format!(
                    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) {webkit} Version/13.0 Safari/605.1.15"
                ),
                false,
            ),
            (
                format!(
                    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14) {webkit} Chrome/78.0.3904.70 Safari/537.36"
                ),
                false,
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) Chrome/66.0.3359.139 Safari/537.36".into(),
                true,
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) Chrome/67.0.3396.62 Safari/537.36".into(),
                false,
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) Chrome/50.0.2661.75 Safari/537.36".into(),
                false,
            ),
            (
                "Mozilla/5.0 (Linux; U) UCBrowser/12.13.1.1 Mobile Chrome/70.0".into(),
                true,
            ),
            (
                "Mozilla/5.0 (Linux; U) UCBrowser/12.13.2.1005 Mobile Chrome/57.0".into(),
                false,
            ),
            ("curl/8.5.0".into(), false),
            (String::new(), false),
        ] {
            assert_eq!(none_is_misread(&agent), misread, "{agent}");
        }
    }
}
