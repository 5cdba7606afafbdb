//! The annotations that ingress-nginx documents, and those that it reads and does not document.

/// An annotation of ingress-nginx.
#[derive(Debug)]
pub struct Annotation {
    /// Its name behind the prefix.
    pub name: &'static str,
    /// A value that people use.
    pub sample: &'static str,
    /// In what it differs from ingress-nginx where it is served with one of nginx's variables in its
    /// value; empty: in nothing that users see.
    pub differs: &'static str,
    /// What to do where it is not served.
    pub instead: &'static str,
}

impl Annotation {
    /// In what it differs from ingress-nginx where it is served with this value, if it does.
    pub fn differs_with(&self, value: &str) -> Option<&'static str> {
        Some(self.differs).filter(|differs| !differs.is_empty() && value.contains('$'))
    }
}

macro_rules! annotations {
    ($($name:literal = $sample:literal, $differs:literal, $instead:literal;)*) => {
        /// Every annotation, by name.
        pub const ANNOTATIONS: &[Annotation] = &[$(Annotation {
            name: $name,
            sample: $sample,
            differs: $differs,
            instead: $instead,
        }),*];
    };
}

annotations! {
    "affinity" = "cookie", "", "keep sessions where every endpoint finds them, such as in a database";
    "affinity-canary-behavior" = "legacy", "", "leave it out: without affinity there is nothing to bind a client to";
    "affinity-mode" = "persistent", "", "leave it out: without affinity there is no mode of it";
    "allowlist-source-range" = "10.0.0.0/8", "", "";
    "app-root" = "/app", "", "";
    "auth-always-set-cookie" = "true", "", "let the authentication service set its cookie on the answers that are passed on";
    "auth-cache-duration" = "200 5m", "", "answers of the authentication service are not kept: let it keep what is dear itself";
    "auth-cache-key" = "$remote_user", "", "answers of the authentication service are not kept: let it keep what is dear itself";
    "auth-file" = "/etc/htpasswd", "", "name a Secret with auth-secret: no file of the gateway is read";
    "auth-keepalive" = "2", "", "nothing to do: connections to backends are kept open anyway";
    "auth-keepalive-requests" = "100", "", "nothing to do: connections to backends are kept open anyway";
    "auth-keepalive-share-vars" = "true", "", "nothing to do: connections to backends are kept open anyway";
    "auth-keepalive-timeout" = "10", "", "nothing to do: connections to backends are kept open anyway";
    "auth-method" = "GET", "", "let the authentication service take the request's own method";
    "auth-proxy-set-headers" = "shop/fields", "", "let the authentication service go by X-Original-URL and the request's own fields";
    "auth-realm" = "realm", "", "leave it out together with auth-type";
    "auth-request-redirect" = "http://example.com/", "", "let the authentication service go by X-Original-URL";
    "auth-response-headers" = "X-User", "", "have the backend ask the authentication service itself";
    "auth-secret" = "users", "", "put a proxy that authenticates, such as oauth2-proxy, between the gateway and the backend";
    "auth-secret-type" = "auth-file", "", "leave it out together with auth-secret";
    "auth-signin" = "https://auth.example.com/", "", "let the authentication service answer 302 itself";
    "auth-signin-redirect-param" = "rd", "", "let the authentication service answer 302 itself";
    "auth-snippet" = "return 403;", "", "say it in auth-url and its companions, or in the authentication service";
    "auth-tls-error-page" = "https://example.com/error", "", "leave it out: clients without a certificate get 400";
    "auth-tls-match-cn" = "CN=it", "", "have the backend compare the subject";
    "auth-tls-pass-certificate-to-upstream" = "true", "", "leave it out: the backend does not see certificates of clients";
    "auth-tls-secret" = "shop/ca", "plain HTTP is refused with 400, and another connection is asked for with 421", "terminate TLS in front of the gateway, or in the backend";
    "auth-tls-verify-client" = "on", "", "leave it out together with auth-tls-secret";
    "auth-tls-verify-depth" = "1", "", "leave it out together with auth-tls-secret";
    "auth-type" = "basic", "bcrypt above cost 14 and DES-crypt are not compared: such users cannot come in", "put a proxy that authenticates, such as oauth2-proxy, between the gateway and the backend";
    "auth-url" = "https://auth.example.com/", "outside of the cluster and this gateway only public addresses are asked, and with https verified", "put a proxy that authenticates, such as oauth2-proxy, between the gateway and the backend";
    "backend-protocol" = "GRPC", "", "";
    "canary" = "true", "", "split traffic with an HTTPRoute, whose backendRefs have weights";
    "canary-by-cookie" = "it", "", "split traffic with an HTTPRoute, whose backendRefs have weights";
    "canary-by-header" = "X-It", "", "match the field in a rule of an HTTPRoute";
    "canary-by-header-pattern" = "a.*", "", "match the field in a rule of an HTTPRoute";
    "canary-by-header-value" = "it", "", "match the field in a rule of an HTTPRoute";
    "canary-weight" = "10", "", "split traffic with an HTTPRoute, whose backendRefs have weights";
    "canary-weight-total" = "100", "", "split traffic with an HTTPRoute, whose backendRefs have weights";
    "client-body-buffer-size" = "8k", "", "nothing to do: bodies are passed on as they come";
    "configuration-snippet" = "more_set_headers \"X-It: 1\";", "", "say each of its directives with an annotation";
    "connection-proxy-header" = "keep-alive", "", "nothing to do: connections to backends are kept open anyway";
    "cors-allow-credentials" = "true", "", "";
    "cors-allow-headers" = "X-It", "", "";
    "cors-allow-methods" = "GET", "", "";
    "cors-allow-origin" = "https://example.com", "", "";
    "cors-expose-headers" = "X-It", "", "";
    "cors-max-age" = "5", "", "";
    "custom-headers" = "shop/fields", "", "have the backend set the fields";
    "custom-http-errors" = "404", "pages are asked for with GET, whatever the request's method", "have the backend write its own error pages";
    "default-backend" = "errors", "it is asked with GET, whatever the request's method", "a rule for the path / to that Service takes what no other rule takes";
    "denylist-source-range" = "10.0.0.0/8", "", "";
    "disable-proxy-intercept-errors" = "true", "", "nothing to do where no custom-http-errors are set";
    "enable-access-log" = "true", "", "nothing to do: one access log is for all routes, with --access-log";
    "enable-cors" = "true", "", "";
    "enable-global-auth" = "true", "", "leave it out: there is no authentication for all routes";
    "enable-modsecurity" = "true", "", "put a web application firewall in front of the gateway or of the backend";
    "enable-opentelemetry" = "true", "", "leave it out: there are no traces";
    "enable-owasp-core-rules" = "true", "", "put a web application firewall in front of the gateway or of the backend";
    "enable-rewrite-log" = "true", "", "ask sealane explain URL how a path is rewritten";
    "fastcgi-index" = "index.php", "", "put a server that speaks HTTP in front of the FastCGI program";
    "fastcgi-params-configmap" = "default/params", "", "put a server that speaks HTTP in front of the FastCGI program";
    "force-ssl-redirect" = "true", "", "";
    "from-to-www-redirect" = "true", "", "an Ingress for the other name with permanent-redirect does the same";
    "http-snippet" = "deny all;", "", "say each of its directives with an annotation";
    "http2-push-preload" = "true", "", "nothing to do: browsers no longer take pushed answers";
    "limit-allowlist" = "10.0.0.0/8", "", "leave it out together with the limits";
    "limit-burst-multiplier" = "5", "", "leave it out together with the limits";
    "limit-connections" = "5", "", "limit clients in front of the gateway; sealane gateway --max-connections-per-source is for all routes";
    "limit-rate" = "100", "", "leave it out: answers are not slowed down";
    "limit-rate-after" = "100", "", "leave it out: answers are not slowed down";
    "limit-rpm" = "5", "", "limit clients in front of the gateway or in the backend";
    "limit-rps" = "5", "", "limit clients in front of the gateway or in the backend";
    "limit-whitelist" = "10.0.0.0/8", "", "leave it out together with the limits";
    "load-balance" = "ewma", "", "leave it out: endpoints are balanced by their answers' time, as with ewma";
    "mirror-host" = "mirror.example.com", "", "an HTTPRoute with the filter RequestMirror";
    "mirror-request-body" = "on", "", "an HTTPRoute with the filter RequestMirror";
    "mirror-target" = "http://a.shop", "copies go to Services of the own namespace, with bodies of up to 64 KiB", "an HTTPRoute with the filter RequestMirror";
    "modsecurity-snippet" = "SecRuleEngine On", "", "put a web application firewall in front of the gateway or of the backend";
    "modsecurity-transaction-id" = "$request_id", "", "put a web application firewall in front of the gateway or of the backend";
    "opentelemetry-operation-name" = "it", "", "leave it out: there are no traces";
    "opentelemetry-trust-incoming-span" = "true", "", "leave it out: there are no traces";
    "permanent-redirect" = "https://example.com", "", "";
    "permanent-redirect-code" = "308", "", "";
    "preserve-trailing-slash" = "true", "", "";
    "proxy-body-size" = "8m", "", "";
    "proxy-buffer-size" = "8k", "", "nothing to do: the head of an answer may have 64 KiB";
    "proxy-buffering" = "on", "", "nothing to do: bodies are passed on as they come";
    "proxy-buffers-number" = "4", "", "nothing to do: bodies are passed on as they come";
    "proxy-busy-buffers-size" = "8k", "", "nothing to do: bodies are passed on as they come";
    "proxy-connect-timeout" = "5", "", "";
    "proxy-cookie-domain" = "off", "plain text only: an expression changes nothing", "have the backend set cookies for the domain that clients see";
    "proxy-cookie-path" = "off", "plain text only: an expression changes nothing", "have the backend set cookies for the path that clients see";
    "proxy-http-version" = "1.1", "", "nothing to do: which version a backend gets is told by backend-protocol";
    "proxy-max-temp-file-size" = "1024m", "", "nothing to do: bodies are passed on as they come";
    "proxy-next-upstream" = "error timeout", "retries stay within the budget of the Service", "the Service's annotations sealane.dev/retry-* say what is tried again";
    "proxy-next-upstream-timeout" = "5", "", "the Service's annotations sealane.dev/retry-* say what is tried again";
    "proxy-next-upstream-tries" = "3", "", "the Service's annotations sealane.dev/retry-* say what is tried again";
    "proxy-read-timeout" = "60", "", "";
    "proxy-redirect-from" = "off", "plain text only: an expression changes nothing", "have the backend redirect to the address that clients see";
    "proxy-redirect-to" = "off", "", "have the backend redirect to the address that clients see";
    "proxy-request-buffering" = "on", "", "nothing to do: bodies are passed on as they come";
    "proxy-send-timeout" = "60", "", "leave it out: proxy-read-timeout and the rules for slow bodies bound a request";
    "proxy-ssl-ciphers" = "HIGH", "", "leave it out: the suites of TLS 1.2 and 1.3 that are safe are offered";
    "proxy-ssl-name" = "web.example.com", "the default is SERVICE.NAMESPACE.svc", "leave it out: the certificate of an HTTPS backend is not verified";
    "proxy-ssl-protocols" = "TLSv1.2", "", "leave it out: TLS 1.2 and 1.3 are offered";
    "proxy-ssl-secret" = "shop/client", "", "have the backend trust the gateway's address instead of its certificate";
    "proxy-ssl-server-name" = "on", "", "leave it out together with proxy-ssl-name";
    "proxy-ssl-verify" = "on", "", "leave it out: the certificate of an HTTPS backend is not verified";
    "proxy-ssl-verify-depth" = "1", "", "leave it out together with proxy-ssl-verify";
    "relative-redirects" = "true", "", "nothing to do: redirects to a path are relative, others absolute";
    "rewrite-target" = "/$1", "", "";
    "satisfy" = "any", "", "leave it out: access lists and authentication both have to be passed";
    "server-alias" = "www.example.com", "names only: an expression is left out", "give the other names rules of their own";
    "server-snippet" = "return 403;", "", "say each of its directives with an annotation";
    "service-upstream" = "true", "", "leave it out: endpoints are balanced by the gateway itself";
    "session-cookie-change-on-failure" = "true", "", "leave it out together with affinity";
    "session-cookie-conditional-samesite-none" = "true", "", "leave it out together with affinity";
    "session-cookie-domain" = "example.com", "", "leave it out together with affinity";
    "session-cookie-expires" = "3600", "", "leave it out together with affinity";
    "session-cookie-max-age" = "3600", "", "leave it out together with affinity";
    "session-cookie-name" = "it", "", "leave it out together with affinity";
    "session-cookie-path" = "/", "", "leave it out together with affinity";
    "session-cookie-samesite" = "Lax", "", "leave it out together with affinity";
    "session-cookie-secure" = "true", "", "leave it out together with affinity";
    "ssl-ciphers" = "HIGH", "", "leave it out: the suites of TLS 1.2 and 1.3 that are safe are offered";
    "ssl-passthrough" = "true", "", "start the gateway with --enable-ssl-passthrough, which ingress-nginx needs, too";
    "ssl-prefer-server-ciphers" = "true", "", "leave it out: the suites of TLS 1.2 and 1.3 that are safe are offered";
    "ssl-redirect" = "true", "", "";
    "stream-snippet" = "server { listen 9000; }", "", "a Service of type LoadBalancer or NodePort takes TCP and UDP";
    "temporal-redirect" = "https://example.com", "", "";
    "temporal-redirect-code" = "307", "", "";
    "upstream-hash-by" = "$remote_addr", "", "leave it out: endpoints are chosen by how soon they answer";
    "upstream-hash-by-subset" = "true", "", "leave it out together with upstream-hash-by";
    "upstream-hash-by-subset-size" = "3", "", "leave it out together with upstream-hash-by";
    "upstream-vhost" = "inner.example.com", "nginx's variables are not filled in", "";
    "use-port-in-redirects" = "true", "", "leave it out: redirects to HTTPS name the port of the gateway's HTTPS listener";
    "use-regex" = "true", "", "";
    "whitelist-source-range" = "10.0.0.0/8", "", "";
    "x-forwarded-prefix" = "/it", "nginx's groups such as $1 are not filled in", "";
}
