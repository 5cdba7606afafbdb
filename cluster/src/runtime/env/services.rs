//! Service variables: `{NAME}_SERVICE_HOST`, `{NAME}_SERVICE_PORT[_{PORT}]` and the older
//! `{NAME}_PORT…` of each Service of the namespace that has a cluster IP. `KUBERNETES_…` is there
//! even without service links.

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The variables of these Services, sorted by Service name.
pub(in crate::runtime) fn variables(services: &[Service], links: bool) -> Vec<(String, String)> {
    let mut sorted: Vec<&Service> = services.iter().filter(|s| links || is_api(s)).collect();
    // The API's own Service first: another of that name in the pod's namespace wins.
    sorted.sort_by_key(|s| (!is_api(s), &s.metadata.name));
    sorted.into_iter().flat_map(of_service).collect()
}

fn is_api(service: &Service) -> bool {
    service.metadata.name.as_deref() == Some("kubernetes")
        && service.metadata.namespace.as_deref() == Some("default")
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let spec = service.spec.as_ref();
    let ip = spec.and_then(|spec| spec.cluster_ip.as_deref());
    let ports = spec.and_then(|spec| spec.ports.as_deref());
    let (Some(name), Some(ip), Some(ports)) = (&service.metadata.name, ip, ports) else {
        return Vec::new();
    };
    let Some(first) = ports.first().filter(|_| !ip.is_empty() && ip != "None") else {
        return Vec::new();
    };
    let name = upper(name);
    let host = match ip.contains(':') {
        true => format!("[{ip}]"),
        false => ip.to_owned(),
    };
    let url = |port: &ServicePort| format!("{}://{host}:{}", protocol(port), port.port);
    let mut variables = vec![
        (format!("{name}_SERVICE_HOST"), ip.to_owned()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let variable = format!("{name}_SERVICE_PORT_{}", upper(port_name));
            variables.push((variable, port.port.to_string()));
        }
    }
    variables.push((format!("{name}_PORT"), url(first)));
    for port in ports {
        let prefix = format!("{name}_PORT_{}_{}", port.port, upper(&protocol(port)));
        variables.push((prefix.clone(), url(port)));
        variables.push((format!("{prefix}_PROTO"), protocol(port)));
        variables.push((format!("{prefix}_PORT"), port.port.to_string()));
        variables.push((format!("{prefix}_ADDR"), ip.to_owned()));
    }
    variables
}

fn protocol(port: &ServicePort) -> String {
    port.protocol.as_deref().unwrap_or("TCP").to_lowercase()
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}
