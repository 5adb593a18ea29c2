//! Ingress (`networking.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    subresources: &[STATUS],
    storage: "ingress",
    columns: &[Column::NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), Column::AGE],
    strategy: &Ingress,
    ..Kind::BASE
};

/// Hosts that a row shows before ` + N more...`.
const SHOWN: usize = 3;

struct Ingress;

impl Strategy for Ingress {
    fn validate(&self, ingress: &Object, errors: &mut Errors) {
        check(ingress, errors, |ingress| validate_spec(&ingress.get("spec")));
    }

    fn validate_create(&self, ingress: &Object, errors: &mut Errors) {
        check(ingress, errors, |ingress| {
            let annotation = ingress.at(&["metadata", "annotations"]).get(CLASS_ANNOTATION);
            let class = ingress.at(&["spec", "ingressClassName"]);
            if annotation.is_set() && class.is_set() && annotation.str() != class.str() {
                let path = crate::field::Path::new("annotations").child(CLASS_ANNOTATION);
                annotation.named(path).invalid("must match `ingressClassName` when both are specified");
            }
        });
    }

    fn row(&self, ingress: &Object, now: i64) -> Vec<Value> {
        let spec = |key: &str| ingress.get("spec").map(|s| list(s, key)).unwrap_or_default();
        vec![
            ingress.name().into(),
            or_none(ingress.str_at(&["spec", "ingressClassName"])),
            hosts(spec("rules")).into(),
            load_balancer(ingress).into(),
            if spec("tls").is_empty() { "80" } else { "80, 443" }.into(),
            age(ingress, now),
        ]
    }
}

fn hosts(rules: &[Value]) -> String {
    let hosts: Vec<&str> = rules.iter().map(|r| r.str_at(&["host"])).filter(|h| !h.is_empty()).collect();
    let shown = hosts[..hosts.len().min(SHOWN)].join(",");
    match hosts.len() {
        0 => "*".to_owned(),
        n if n > SHOWN => format!("{shown} + {} more...", rules.len() - SHOWN),
        _ => shown,
    }
}

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

fn validate_spec(spec: &View<'_>) {
    let (rules, backend) = (spec.get("rules"), spec.get("defaultBackend"));
    if rules.is_empty() && !backend.is_set() {
        spec.invalid_value(Value::Array(Vec::new()), "either `defaultBackend` or `rules` must be specified");
    }
    if backend.is_set() {
        validate_backend(&backend);
    }
    for rule in rules.items() {
        let host = rule.get("host");
        if rules::parse_ip(host.str()).is_some() {
            host.invalid("must be a DNS name, not an IP address");
        }
        host_format(&host);
        let http = rule.get("http");
        if http.is_set() && http.get("paths").require() {
            http.get("paths").items().for_each(|path| validate_path(&path));
        }
    }
    for tls in spec.get("tls").items() {
        tls.get("hosts").items().for_each(|host| host_format(&host));
        tls.get("secretName").format_if_set(names::dns_subdomain);
    }
    if spec.get("ingressClassName").is_set() {
        spec.get("ingressClassName").format(names::dns_subdomain);
    }
}

fn host_format(host: &View<'_>) {
    if host.str().contains('*') {
        host.format(names::wildcard_subdomain);
    } else {
        host.format_if_set(names::dns_subdomain);
    }
}

fn validate_path(entry: &View<'_>) {
    let (kind, path) = (entry.get("pathType"), entry.get("path"));
    if !kind.is_set() {
        return kind.required("pathType must be specified");
    }
    let is_strict = matches!(kind.str(), "Exact" | "Prefix");
    if !["Exact", "Prefix", "ImplementationSpecific"].contains(&kind.str()) {
        kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"]);
    } else if !path.str().starts_with('/') && (is_strict || !path.is_empty()) {
        path.invalid_value(path.str(), "must be an absolute path");
    }
    if is_strict {
        for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|s| path.str().contains(**s)) {
            path.invalid(format!("must not contain '{sequence}'"));
        }
        for suffix in ["/..", "/."].iter().filter(|s| path.str().ends_with(**s)) {
            path.invalid(format!("cannot end with '{suffix}'"));
        }
    }
    validate_backend(&entry.get("backend"));
}

fn validate_backend(backend: &View<'_>) {
    let (resource, service) = (backend.get("resource"), backend.get("service"));
    match (resource.is_set(), service.is_set()) {
        (true, true) => backend.invalid_value("", "cannot set both resource and service backends"),
        (false, false) => backend.invalid_value("", "resource or service backend is required"),
        (true, false) => {
            resource.get("apiGroup").format_if_set(names::dns_subdomain);
            for field in ["kind", "name"].map(|f| resource.get(f)) {
                if field.require() {
                    field.format(names::path_segment);
                }
            }
        }
        (false, true) => {
            if service.get("name").require() {
                service.get("name").format(names::dns_label);
            }
            let (name, number) = (service.at(&["port", "name"]), service.at(&["port", "number"]));
            match (!name.is_empty(), number.number() != 0) {
                (true, true) => backend.invalid_value("", "cannot set both port name & port number"),
                (true, false) => name.formats(names::port_name),
                (false, true) => number.port(),
                (false, false) => backend.required("port name or number is required"),
            }
        }
    }
}
