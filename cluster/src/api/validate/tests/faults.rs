//! Objects with one fault each.

use serde_json::{Value, json};

type Case = (&'static str, Value, Vec<&'static str>);

/// Specs of pods with the faults that are found in them.
pub(super) fn bad_pods() -> Vec<Case> {
    let with = |extra: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        let fields = container.as_object_mut().unwrap();
        fields.append(&mut extra.as_object().unwrap().clone());
        json!({"containers": [container]})
    };
    let and = |extra: Value| {
        let mut spec = json!({"containers": [{"name": "c", "image": "i"}]});
        let fields = spec.as_object_mut().unwrap();
        fields.append(&mut extra.as_object().unwrap().clone());
        spec
    };
    vec![
        (
            "no containers",
            json!({}),
            vec!["spec.containers: Required value"],
        ),
        (
            "no name",
            with(json!({"name": ""})),
            vec!["spec.containers[0].name: Required value"],
        ),
        (
            "pull policy",
            with(json!({"imagePullPolicy": "x"})),
            vec![
                "spec.containers[0].imagePullPolicy: Unsupported value: \"x\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ],
        ),
        (
            "port name",
            with(json!({"ports": [{"containerPort": 80, "name": "1"}]})),
            vec![
                "spec.containers[0].ports[0].name: Invalid value: \"1\": must contain at least one letter (a-z)",
            ],
        ),
        (
            "same port name",
            with(
                json!({"ports": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "a"}]}),
            ),
            vec!["spec.containers[0].ports[1].name: Duplicate value: \"a\""],
        ),
        (
            "protocol",
            with(json!({"ports": [{"containerPort": 80, "protocol": "x"}]})),
            vec![
                "spec.containers[0].ports[0].protocol: Unsupported value: \"x\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ],
        ),
        (
            "variable",
            with(json!({"env": [{"name": "A=B"}]})),
            vec![
                "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            ],
        ),
        (
            "two sources",
            with(
                json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            ),
            vec![
                "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            ],
        ),
        (
            "key missing",
            with(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]})),
            vec!["spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"],
        ),
        (
            "mount without volume",
            with(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})),
            vec!["spec.containers[0].volumeMounts[0].name: Not found: \"v\""],
        ),
        (
            "liveness threshold",
            with(json!({"livenessProbe": {"successThreshold": 2, "tcpSocket": {"port": 80}}})),
            vec!["spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1"],
        ),
        (
            "no handler",
            with(json!({"readinessProbe": {}})),
            vec!["spec.containers[0].readinessProbe: Required value: must specify a handler type"],
        ),
        (
            "two handlers",
            with(json!({"readinessProbe": {"exec": {"command": ["x"]}, "tcpSocket": {"port": 1}}})),
            vec![
                "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            ],
        ),
        (
            "probe port",
            with(json!({"readinessProbe": {"httpGet": {"port": 0}}})),
            vec![
                "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
        (
            "negative delay",
            with(json!({"readinessProbe": {"tcpSocket": {"port": 80}, "initialDelaySeconds": -1}})),
            vec![
                "spec.containers[0].readinessProbe.initialDelaySeconds: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            "hook without handler",
            with(json!({"lifecycle": {"preStop": {}}})),
            vec![
                "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type",
            ],
        ),
        (
            "same name as an init container",
            and(json!({"initContainers": [{"name": "c", "image": "i"}]})),
            vec!["spec.initContainers[0].name: Duplicate value: \"c\""],
        ),
        (
            "init restart policy",
            and(json!({"initContainers": [{"name": "i", "image": "i", "restartPolicy": "Never"}]})),
            vec![
                "spec.initContainers[0].restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            ],
        ),
        (
            "same volume",
            and(json!({"volumes": [{"name": "v"}, {"name": "v"}]})),
            vec!["spec.volumes[1].name: Duplicate value: \"v\""],
        ),
        (
            "two volume types",
            and(json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]})),
            vec!["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            "volume of nothing",
            and(json!({"volumes": [{"name": "v", "configMap": {}}]})),
            vec!["spec.volumes[0].configMap.name: Required value"],
        ),
        (
            "dns policy",
            and(json!({"dnsPolicy": "None"})),
            vec![
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ],
        ),
        (
            "deadline",
            and(json!({"activeDeadlineSeconds": 0})),
            vec![
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ],
        ),
        (
            "toleration",
            and(json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]})),
            vec![
                "spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
            ],
        ),
        (
            "host alias",
            and(json!({"hostAliases": [{"ip": "x"}]})),
            vec![
                "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ],
        ),
        (
            "same host port",
            json!({"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 1, "hostPort": 9}]}, {"name": "b", "image": "i", "ports": [{"containerPort": 2, "hostPort": 9}]}]}),
            vec!["spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//9\""],
        ),
    ]
}

/// Specs of services with the faults that are found in them.
pub(super) fn bad_services() -> Vec<Case> {
    vec![
        (
            "type",
            json!({"type": "x", "ports": [{"port": 80}]}),
            vec![
                "spec.type: Unsupported value: \"x\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
        (
            "no name for two",
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81}]}),
            vec!["spec.ports[1].name: Required value"],
        ),
        (
            "same name",
            json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}),
            vec!["spec.ports[1].name: Duplicate value: \"a\""],
        ),
        (
            "target",
            json!({"ports": [{"port": 80, "targetPort": "a--b"}]}),
            vec![
                "spec.ports[0].targetPort: Invalid value: \"a--b\": must not contain consecutive hyphens",
            ],
        ),
        (
            "node port",
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            "headless node port",
            json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
            ],
        ),
        (
            "external name missing",
            json!({"type": "ExternalName"}),
            vec!["spec.externalName: Required value"],
        ),
        (
            "external name with address",
            json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.0.0.1"}),
            vec!["spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
        ),
        (
            "affinity",
            json!({"sessionAffinity": "x", "ports": [{"port": 80}]}),
            vec![
                "spec.sessionAffinity: Unsupported value: \"x\": supported values: \"ClientIP\", \"None\"",
            ],
        ),
        (
            "external address",
            json!({"externalIPs": ["127.0.0.1"], "ports": [{"port": 80}]}),
            vec![
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        ),
        (
            "traffic policy",
            json!({"externalTrafficPolicy": "Local", "ports": [{"port": 80}]}),
            vec![
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        ),
    ]
}

/// Specs of ingresses with the faults that are found in them.
pub(super) fn bad_ingresses() -> Vec<Case> {
    let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
    let path = |path: &str, type_: &str| {
        let path = json!({"path": path, "pathType": type_, "backend": backend});
        json!({"rules": [{"http": {"paths": [path]}}]})
    };
    let host = |host: &str| json!({"rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]});
    vec![
        (
            "relative path",
            path("a", "Prefix"),
            vec![
                "spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path",
            ],
        ),
        (
            "dots",
            path("/a/../b", "Exact"),
            vec![
                "spec.rules[0].http.paths[0].path: Invalid value: \"/a/../b\": must not contain '/../'",
            ],
        ),
        (
            "dot at the end",
            path("/a/.", "Exact"),
            vec!["spec.rules[0].http.paths[0].path: Invalid value: \"/a/.\": cannot end with '/.'"],
        ),
        (
            "path type",
            path("/", "x"),
            vec![
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"x\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ],
        ),
        (
            "address as host",
            host("10.0.0.1"),
            vec![
                "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ],
        ),
        (
            "no paths",
            json!({"rules": [{"http": {"paths": []}}]}),
            vec!["spec.rules[0].http.paths: Required value"],
        ),
        (
            "no port",
            json!({"defaultBackend": {"service": {"name": "s"}}}),
            vec!["spec.defaultBackend: Required value: port name or number is required"],
        ),
        (
            "two ports",
            json!({"defaultBackend": {"service": {"name": "s", "port": {"name": "a", "number": 1}}}}),
            vec![
                "spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number",
            ],
        ),
        (
            "no backend",
            json!({"defaultBackend": {}}),
            vec![
                "spec.defaultBackend: Invalid value: \"\": resource or service backend is required",
            ],
        ),
    ]
}
