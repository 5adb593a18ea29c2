//! APIService (`apiregistration.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
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
