//! APIService (`apiregistration.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::check;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    scope: Scope::Cluster,
    categories: &["api-extensions"],
    subresources: &[STATUS],
    storage: "apiregistration.k8s.io/apiservices",
    columns: &[Column::NAME, text("Service"), text("Available"), Column::AGE],
    strategy: &ApiService,
    ..Kind::BASE
};

struct ApiService;

impl Strategy for ApiService {
    fn default(&self, service: &mut Object) {
        if let Some(service) = descend(service, &["spec", "service"]) {
            default_nil(service, "port", 443);
        }
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, api: &Object, errors: &mut Errors) {
        check(api, errors, |api| {
            let (spec, name) = (api.get("spec"), api.at(&["metadata", "name"]));
            let expected = format!("{}.{}", spec.get("version").str(), spec.get("group").str());
            if name.str() != expected && !(spec.get("group").is_empty() && spec.get("version").str() == "v1") {
                name.invalid(format!("must be `spec.version+\".\"+spec.group`: {expected:?}"));
            }
            if spec.get("version").require() {
                spec.get("version").format(names::dns1035_label);
            }
            spec.get("group").format_if_set(names::dns_subdomain);
            for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
                if !(1..=max).contains(&spec.get(field).number()) {
                    spec.get(field)
                        .invalid_value(spec.get(field).number(), format!("must be positive and less than {max}"));
                }
            }
            let service = spec.get("service");
            if !service.is_set() {
                if !spec.get("caBundle").is_empty() {
                    spec.get("caBundle").invalid("local APIServices may not have a caBundle");
                }
                return;
            }
            service.get("name").require();
            service.get("namespace").require();
            service.get("port").port();
            if spec.get("insecureSkipTLSVerify").is_true() && !spec.get("caBundle").is_empty() {
                spec.get("insecureSkipTLSVerify").invalid("may not be true if caBundle is present");
            }
        });
    }

    fn row(&self, api: &Object, now: i64) -> Vec<Value> {
        let service = match api.at(&["spec", "service"]) {
            Some(service) if service.is_object() => {
                format!("{}/{}", service.str_at(&["namespace"]), service.str_at(&["name"]))
            }
            _ => "Local".to_owned(),
        };
        vec![api.name().into(), service.into(), available(api).into(), age(api, now)]
    }
}

/// `True`, `False (Reason)`, `Unknown`
fn available(api: &Object) -> String {
    let conditions = api.get("status").map(|s| list(s, "conditions")).unwrap_or_default();
    match conditions.iter().find(|c| c.str_at(&["type"]) == "Available") {
        Some(c) if c.str_at(&["status"]) == "True" => "True".to_owned(),
        Some(c) => format!("{} ({})", c.str_at(&["status"]), c.str_at(&["reason"])),
        None => "Unknown".to_owned(),
    }
}
