//! The keys of ingress-nginx's ConfigMap.

/// A key of the ConfigMap.
#[derive(Debug)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// What to do where it is not served.
    pub instead: &'static str,
    /// Nobody notices that it is not served.
    pub inward: bool,
}

/// Groups of keys, each with what to do where they are not served.
macro_rules! settings {
    ($($inward:literal, $instead:literal: $($key:literal)*;)*) => {
        /// The keys that somebody may have set.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            key: $key,
            instead: $instead,
            inward: $inward,
        }),*),*];
    };
}

settings! {
    true, "nothing to do: it is about nginx's own memory, files and processes":
        "client-body-buffer-size" "client-header-buffer-size" "enable-aio-write"
        "enable-multi-accept" "enable-serial-reloads" "grpc-buffer-size-kb"
        "http2-max-field-size" "http2-max-header-size" "large-client-header-buffers"
        "lua-shared-dicts" "map-hash-bucket-size" "max-worker-connections" "max-worker-open-files"
        "proxy-buffer-size" "proxy-buffering" "proxy-buffers-number" "proxy-busy-buffers-size"
        "proxy-headers-hash-bucket-size" "proxy-headers-hash-max-size" "proxy-max-temp-file-size"
        "proxy-request-buffering" "reuse-port" "server-name-hash-bucket-size"
        "server-name-hash-max-size" "ssl-buffer-size" "variables-hash-bucket-size"
        "variables-hash-max-size" "worker-cpu-affinity" "worker-processes";
    true, "nothing to do: it is about nginx's page of figures, and there is /metrics":
        "nginx-status-ipv4-whitelist" "nginx-status-ipv6-whitelist";
    true, "nothing to do: nothing is pasted into a configuration":
        "allow-snippet-annotations" "annotation-value-word-blocklist" "annotations-risk-level";
    true, "nothing to do: it is as usual":
        "enable-ocsp" "generate-request-id" "ignore-invalid-headers" "keep-alive"
        "keep-alive-requests" "use-http2" "server-tokens" "upstream-keepalive-connections"
        "upstream-keepalive-requests" "upstream-keepalive-time" "upstream-keepalive-timeout"
        "retry-non-idempotent" "http2-max-concurrent-streams" "http2-max-requests"
        "relative-redirects" "proxy-http-version" "load-balance";
    false, "--access-log of sealane gateway writes lines of JSON, whose fields are fixed":
        "access-log-params" "access-log-path" "disable-access-log"
        "enable-access-log-for-default-backend" "error-log-level" "error-log-path" "enable-syslog"
        "http-access-log-path" "log-format-escape-json" "log-format-escape-none"
        "log-format-stream" "log-format-upstream" "skip-access-log-urls" "stream-access-log-path"
        "syslog-host" "syslog-port" "debug-connections";
    false, "have the backend set the field, or the annotation custom-headers where it is served":
        "add-headers" "allow-backend-server-header" "global-allowed-response-headers"
        "hide-headers" "proxy-set-headers" "proxy-add-original-uri-header";
    false, "leave it out: the versions and suites of TLS that are safe are offered":
        "ssl-ciphers" "ssl-dh-param" "ssl-ecdh-curve" "ssl-protocols" "ssl-session-cache"
        "ssl-session-cache-size" "ssl-session-ticket-key" "ssl-session-tickets"
        "ssl-session-timeout" "ssl-reject-handshake" "proxy-ssl-location-only";
    false, "have the backend compress its answers":
        "brotli-level" "brotli-min-length" "brotli-types" "enable-brotli" "gzip-disable"
        "gzip-level" "gzip-min-length" "gzip-types" "use-gzip";
    false, "leave it out: there are no traces":
        "enable-opentelemetry" "jaeger-baggage-header" "jaeger-collector-host"
        "jaeger-collector-port" "jaeger-debug-header" "jaeger-endpoint"
        "jaeger-propagation-format" "jaeger-sampler-host" "jaeger-sampler-param"
        "jaeger-sampler-port" "jaeger-sampler-type" "jaeger-service-name"
        "jaeger-trace-baggage-header-prefix" "jaeger-trace-context-header-name"
        "opentelemetry-config" "opentelemetry-operation-name"
        "opentelemetry-trust-incoming-span" "otel-max-export-batch-size" "otel-max-queuesize"
        "otel-sampler" "otel-sampler-parent-based" "otel-sampler-ratio"
        "otel-schedule-delay-millis" "otel-service-name" "otlp-collector-host"
        "otlp-collector-port";
    false, "say each of its directives with an annotation of the Ingresses that need it":
        "http-snippet" "location-snippet" "main-snippet" "server-snippet" "stream-snippet"
        "modsecurity-snippet";
    false, "put a web application firewall in front of the gateway":
        "block-referers" "block-user-agents" "enable-modsecurity" "enable-owasp-modsecurity-crs";
    false, "deny-source annotations of the Ingresses do the same, one by one":
        "block-cidrs" "denylist-source-range" "whitelist-source-range";
    false, "auth-url and its companions at the Ingresses do the same, one by one":
        "global-auth-cache-duration" "global-auth-cache-key" "global-auth-method"
        "global-auth-request-redirect" "global-auth-response-headers" "global-auth-signin"
        "global-auth-signin-redirect-param" "global-auth-snippet" "global-auth-url"
        "no-auth-locations";
    false, "the annotation of the same name does it, Ingress by Ingress":
        "custom-http-errors" "force-ssl-redirect" "limit-rate" "limit-rate-after"
        "proxy-body-size" "proxy-connect-timeout" "proxy-cookie-domain" "proxy-cookie-path"
        "proxy-next-upstream" "proxy-next-upstream-timeout" "proxy-next-upstream-tries"
        "proxy-read-timeout" "proxy-redirect-from" "proxy-redirect-to" "proxy-send-timeout"
        "service-upstream" "ssl-redirect";
    false, "an option of sealane gateway does it: sealane gateway --help":
        "bind-address" "disable-ipv6" "compute-full-forwarded-for" "enable-real-ip"
        "forwarded-for-header" "forwarded-for-proxy-protocol-header"
        "proxy-protocol-header-timeout" "proxy-real-ip-cidr" "use-forwarded-headers"
        "use-proxy-protocol" "worker-shutdown-timeout" "limit-conn-zone-variable";
    false, "leave it out: the gateway's own limits hold, which docs/ingress.md and ARCHITECTURE.md name":
        "client-body-timeout" "client-header-timeout" "proxy-stream-timeout"
        "proxy-stream-next-upstream" "proxy-stream-next-upstream-timeout"
        "proxy-stream-next-upstream-tries" "proxy-stream-responses" "disable-ipv6-dns"
        "limit-conn-status-code" "limit-req-status-code" "enable-underscores-in-headers"
        "strict-validate-path-type" "allow-cross-namespace-resources" "default-type";
    false, "have the backend or a load balancer in front write it":
        "hsts" "hsts-include-subdomains" "hsts-max-age" "hsts-preload" "http-redirect-code"
        "no-tls-redirect-locations";
    false, "have the backend look addresses up":
        "geoip2-autoreload-in-minutes" "use-geoip" "use-geoip2";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ingress_a21_settings_are_listed_once() {
        let keys: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
        assert_eq!(keys.len(), SETTINGS.len());
        assert!(keys.len() > 180, "{}", keys.len());
    }
}
