//! The codes of problems. A code never changes its meaning, and one that is given up is not used
//! again; `docs/check.md` has a section for each.

use sealane_config::model::{Problem, ProblemKind};
use sealane_dns::corefile;
use serde::Serialize;

use crate::manifests::Fault;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Good to know.
    Info,
    /// Probably not what was meant.
    Warning,
    /// Something is not served as it is written.
    Error,
}

/// What a code is about; problems are shown by group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Files and the objects in them.
    Files,
    /// Services and EndpointSlices.
    Services,
    /// Ingresses and their routes.
    Routes,
    /// Certificates.
    Certificates,
    /// Annotations.
    Annotations,
    /// Corefiles.
    Corefile,
}

impl Group {
    /// Every group, in the order in which they are shown.
    pub(crate) const ALL: [Self; 6] = [
        Self::Files,
        Self::Services,
        Self::Routes,
        Self::Certificates,
        Self::Annotations,
        Self::Corefile,
    ];

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Files => "objects",
            Self::Services => "services and endpoints",
            Self::Routes => "routes",
            Self::Certificates => "certificates",
            Self::Annotations => "annotations",
            Self::Corefile => "Corefile",
        }
    }
}

/// A code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Code {
    /// `SL` and four digits.
    pub(crate) id: &'static str,
    /// What is wrong, in a few words.
    pub(crate) title: &'static str,
    /// How bad it is, where nothing else is known.
    pub(crate) severity: Severity,
    /// What to do.
    pub(crate) advice: &'static str,
}

impl Code {
    /// The group, by the first two digits.
    pub(crate) fn group(&self) -> Group {
        match self.id.get(..4) {
            Some("SL01") => Group::Files,
            Some("SL02") => Group::Services,
            Some("SL03") => Group::Routes,
            Some("SL04") => Group::Certificates,
            Some("SL06") => Group::Corefile,
            _ => Group::Annotations,
        }
    }
}

macro_rules! codes {
    ($($name:ident = $id:literal, $severity:ident, $title:literal, $advice:literal;)*) => {
        $(pub(crate) const $name: &Code = &Code {
            id: $id,
            title: $title,
            severity: Severity::$severity,
            advice: $advice,
        };)*

        /// Every code, in order.
        pub(crate) const ALL: &[&Code] = &[$($name),*];
    };
}

codes! {
    UNREADABLE = "SL0101", Error, "file cannot be read",
        "check the path and its permissions";
    SYNTAX = "SL0102", Error, "file is not YAML or JSON",
        "correct the line; indentation and unclosed brackets are the usual reasons";
    NOT_AN_OBJECT = "SL0103", Error, "not a Kubernetes object",
        "give every document apiVersion, kind and metadata.name, or take the file out of the directory";
    UNKNOWN_KIND = "SL0104", Error, "unknown kind or version",
        "use an apiVersion and kind that Kubernetes 1.34 has";
    FOREIGN_KIND = "SL0105", Info, "kind is not checked",
        "nothing to do: a custom resource is its own controller's business, and `sealane up` cannot take it";
    UNKNOWN_FIELD = "SL0106", Error, "unknown field",
        "correct its spelling or its indentation; kubectl explain KIND shows the fields";
    BAD_VALUE = "SL0107", Error, "value is not allowed",
        "use a value that the message allows";
    IMPLIED_NAMESPACE = "SL0108", Info, "namespace is not in the files",
        "make sure that the namespace exists before the files are applied, or add it to them";
    DUPLICATE = "SL0109", Error, "object is defined twice",
        "remove one of the two: whichever is applied last wins";
    REFUSED = "SL0110", Error, "object is refused",
        "correct what the message names";

    NO_PODS = "SL0201", Warning, "Service selects no pods",
        "make spec.selector match the labels of a pod template in the same namespace";
    NO_TARGET_PORT = "SL0202", Error, "no container has the target port",
        "name a port in the container's ports, or give targetPort as a number";
    NO_ENDPOINTS = "SL0203", Warning, "Service has no endpoints",
        "see whether pods with the selector's labels exist: kubectl get pods -l …";
    NONE_READY = "SL0204", Warning, "no endpoint is ready",
        "see why the pods' readiness probes fail: kubectl describe pod …";
    ORPHAN_SLICE = "SL0205", Warning, "EndpointSlice belongs to no Service",
        "set the label kubernetes.io/service-name to a Service of the same namespace, or delete the slice";
    ADDRESS_CONFLICT = "SL0206", Error, "address is another Service's",
        "give the Services different addresses or node ports";
    BAD_SERVICE_FIELD = "SL0207", Error, "Service field cannot be used",
        "correct the field; the rest of the Service is served";
    BAD_SLICE_FIELD = "SL0208", Error, "EndpointSlice field cannot be used",
        "correct the field; the slice's other endpoints are used";

    NO_SERVICE = "SL0301", Error, "backend Service does not exist",
        "create the Service in the route's namespace, or correct the name";
    NO_PORT = "SL0302", Error, "backend port does not exist",
        "use a port number or name of the Service's spec.ports";
    ROUTE_WITHOUT_ENDPOINTS = "SL0303", Warning, "route leads to no endpoint",
        "requests are answered 503 until the Service has a ready endpoint";
    ROUTE_CONFLICT = "SL0304", Error, "another Ingress has this route",
        "remove one of the two, or give them different hosts or paths";
    UNKNOWN_CLASS = "SL0305", Error, "IngressClass does not exist",
        "use a class that exists: kubectl get ingressclass";
    FOREIGN_CLASS = "SL0306", Info, "Ingress is another controller's",
        "nothing to do, unless Sealane should serve it: then name a class with controller sealane.dev/ingress, or the controller with --ingress-class-controller";
    NO_CLASS = "SL0307", Warning, "Ingress names no class",
        "set spec.ingressClassName, or make a class the default one";
    CLASS_PARAMETERS = "SL0308", Error, "IngressClass has parameters",
        "remove spec.parameters: a class with parameters is not served";
    BAD_BACKEND = "SL0309", Error, "backend cannot be served",
        "use a Service with endpoints of its own: no ExternalName, no resource";
    BAD_HOST = "SL0310", Error, "host is not a host name",
        "use a DNS name, or `*.` and a DNS name";
    BAD_PATH = "SL0311", Error, "path cannot be matched",
        "start the path with `/`, or make it a valid regular expression where those are switched on";
    NO_PATHS = "SL0312", Warning, "rule has no paths",
        "give the rule paths, or the Ingress a defaultBackend";
    BAD_ROUTE_FIELD = "SL0313", Error, "route field cannot be used",
        "correct the field";

    NO_SECRET = "SL0401", Error, "Secret does not exist",
        "create it in the Ingress's namespace: kubectl create secret tls NAME --cert=… --key=…";
    SECRET_TYPE = "SL0402", Error, "Secret is not a certificate",
        "make a Secret of type kubernetes.io/tls with tls.crt and tls.key";
    BAD_CERTIFICATE = "SL0403", Error, "certificate or key cannot be used",
        "put a PEM chain into tls.crt and its key into tls.key";
    CERTIFICATE_HOST = "SL0404", Error, "certificate is for other hosts",
        "get a certificate whose DNS names include the host";
    CERTIFICATE_TIME = "SL0405", Error, "certificate is not valid now",
        "renew the certificate; clients refuse it";
    NO_CERTIFICATE = "SL0406", Warning, "TLS host without a certificate",
        "set secretName, or give the gateway a default certificate: clients are shown a self-signed one";
    EXPIRES_SOON = "SL0407", Warning, "certificate expires soon",
        "renew the certificate";

    BAD_ANNOTATION = "SL0501", Error, "annotation's value cannot be used",
        "correct the value";
    NO_EFFECT = "SL0502", Warning, "annotation has no effect",
        "remove it, or do without what it asks for";
    REFUSED_ANNOTATION = "SL0503", Error, "annotation keeps the Ingress from being served",
        "remove it: its routes answer 503 rather than open what it was meant to close";
    UNKNOWN_SETTING = "SL0504", Warning, "annotation is no setting of a Service",
        "correct its name: docs/services.md has them all";
    BAD_SETTING = "SL0505", Error, "setting of the gateway cannot be used",
        "correct the value in the gateway's ConfigMap";
    UNSUPPORTED_SETTING = "SL0506", Warning, "setting of the gateway is not supported",
        "remove it from the gateway's ConfigMap, or do without what it asks for";
    NO_CONFIG_MAP = "SL0507", Error, "ConfigMap does not exist",
        "create it, or correct the name";

    COREFILE_STRUCTURE = "SL0601", Error, "Corefile is not in order",
        "correct the braces, names or imports of the line";
    COREFILE_UNKNOWN = "SL0602", Error, "unknown directive or property",
        "correct its spelling, or remove it";
    COREFILE_UNSUPPORTED = "SL0603", Error, "directive or property is not supported",
        "do without it as the message says";
    COREFILE_VALUE = "SL0604", Error, "argument cannot be used",
        "use an argument that the message allows";
    COREFILE_OVERLAP = "SL0605", Error, "another server block has these names",
        "give one of the blocks another zone, port or address";
    COREFILE_UNREACHABLE = "SL0606", Warning, "no query gets there",
        "correct the zone, or remove the line";
    COREFILE_NO_EFFECT = "SL0607", Warning, "line has no effect",
        "remove the line, or add what it needs";
}

/// The code with this name, in upper or lower case.
pub(crate) fn find(id: &str) -> Option<&'static Code> {
    ALL.iter()
        .copied()
        .find(|code| code.id.eq_ignore_ascii_case(id))
}

/// The code for what is wrong with a Corefile.
pub(crate) fn of_corefile(kind: corefile::ProblemKind) -> &'static Code {
    match kind {
        corefile::ProblemKind::Syntax => COREFILE_STRUCTURE,
        corefile::ProblemKind::Unknown => COREFILE_UNKNOWN,
        corefile::ProblemKind::Unsupported => COREFILE_UNSUPPORTED,
        corefile::ProblemKind::Value => COREFILE_VALUE,
        corefile::ProblemKind::Overlap => COREFILE_OVERLAP,
        corefile::ProblemKind::Unreachable => COREFILE_UNREACHABLE,
        corefile::ProblemKind::NoEffect => COREFILE_NO_EFFECT,
    }
}

/// The code for a manifest that cannot be used.
pub(crate) fn of_fault(fault: Fault) -> &'static Code {
    match fault {
        Fault::Unreadable => UNREADABLE,
        Fault::Syntax => SYNTAX,
        Fault::NotAnObject => NOT_AN_OBJECT,
        Fault::UnknownKind => UNKNOWN_KIND,
        Fault::ForeignKind => FOREIGN_KIND,
        Fault::UnknownField => UNKNOWN_FIELD,
        Fault::BadValue => BAD_VALUE,
        Fault::Refused => REFUSED,
    }
}

/// The code for a problem that the compiler found.
pub(crate) fn of_problem(problem: &Problem) -> &'static Code {
    match problem.kind {
        ProblemKind::MissingService => NO_SERVICE,
        ProblemKind::MissingPort => NO_PORT,
        ProblemKind::MissingSecret => NO_SECRET,
        ProblemKind::WrongSecretType => SECRET_TYPE,
        ProblemKind::BadCertificate => BAD_CERTIFICATE,
        ProblemKind::CertificateHost => CERTIFICATE_HOST,
        ProblemKind::CertificateTime => CERTIFICATE_TIME,
        ProblemKind::MissingConfigMap => NO_CONFIG_MAP,
        ProblemKind::UnsupportedSetting => UNSUPPORTED_SETTING,
        ProblemKind::BadAnnotation => BAD_ANNOTATION,
        ProblemKind::UnknownAnnotation if problem.object.kind == "Service" => UNKNOWN_SETTING,
        ProblemKind::UnknownAnnotation => NO_EFFECT,
        ProblemKind::RefusedAnnotation => REFUSED_ANNOTATION,
        ProblemKind::Conflict if problem.object.kind == "Service" => ADDRESS_CONFLICT,
        ProblemKind::Conflict => ROUTE_CONFLICT,
        ProblemKind::BadField => of_field(problem),
    }
}

fn of_field(problem: &Problem) -> &'static Code {
    let field = problem.field.as_str();
    let last = field.rsplit('.').next().unwrap_or_default();
    match problem.object.kind {
        "Service" => BAD_SERVICE_FIELD,
        "EndpointSlice" => BAD_SLICE_FIELD,
        "IngressClass" => CLASS_PARAMETERS,
        "ConfigMap" => BAD_SETTING,
        _ if matches!(last, "backend" | "defaultBackend" | "backendRefs") => BAD_BACKEND,
        _ if last == "host" || last.starts_with("hosts[") || last == "hostname" => BAD_HOST,
        _ if last == "path" || field.ends_with("path.value") => BAD_PATH,
        "Ingress" if last.starts_with("rules[") => NO_PATHS,
        _ => BAD_ROUTE_FIELD,
    }
}
