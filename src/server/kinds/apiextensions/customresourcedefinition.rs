//! CustomResourceDefinition (`apiextensions.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
use crate::server::kinds::*;
use std::collections::BTreeSet;

pub static KIND: Kind = Kind {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    scope: Scope::Cluster,
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    subresources: &[STATUS],
    storage: "apiextensions.k8s.io/customresourcedefinitions",
    strategy: &CustomResourceDefinition,
    ..Kind::BASE
};

struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn default(&self, crd: &mut Object) {
        let Some(spec) = child(crd, "spec") else { return };
        if let Some(names) = child(spec, "names") {
            let kind = names.str_at(&["kind"]).to_owned();
            default_zero(names, "singular", kind.to_lowercase());
            if !kind.is_empty() {
                default_zero(names, "listKind", format!("{kind}List"));
            }
        }
        if let Some(conversion) = child_or_new(spec, "conversion") {
            default_zero(conversion, "strategy", "None");
            if let Some(service) = descend(conversion, &["webhook", "clientConfig", "service"]) {
                default_nil(service, "port", 443);
            }
        }
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, crd: &Object, errors: &mut Errors) {
        check(crd, errors, |crd| {
            let (spec, name) = (crd.get("spec"), crd.at(&["metadata", "name"]));
            validate_spec(&spec);
            let expected = format!("{}.{}", spec.at(&["names", "plural"]).str(), spec.get("group").str());
            if name.str() != expected {
                name.invalid("must be spec.names.plural+\".\"+spec.group");
            }
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            for path in [
                ["spec", "group"].as_slice(),
                &["spec", "scope"],
                &["spec", "names", "kind"],
                &["spec", "names", "plural"],
            ] {
                new.at(path).immutable(&old.at(path));
            }
        });
    }
}

fn validate_spec(spec: &View<'_>) {
    let group = spec.get("group");
    if group.require() {
        group.format(names::dns_subdomain);
        if !group.str().contains('.') {
            group.invalid("should be a domain with at least one dot");
        }
    }
    spec.get("scope").require_one_of(&["Cluster", "Namespaced"]);
    if spec.get("preserveUnknownFields").is_true() {
        let why = "must be set to false; use x-kubernetes-preserve-unknown-fields: true in the schema instead";
        spec.get("preserveUnknownFields").invalid(why);
    }
    validate_names(&spec.get("names"));
    let versions = spec.get("versions");
    let mut seen = BTreeSet::new();
    for version in versions.items() {
        let name = version.get("name");
        name.format(names::dns1035_label);
        if !seen.insert(name.str()) {
            name.duplicate();
        }
        let schema = version.at(&["schema", "openAPIV3Schema"]);
        if !schema.is_set() {
            schema.required("schemas are required");
        }
    }
    if versions.items().filter(|v| v.get("storage").is_true()).count() != 1 {
        versions.invalid("must have exactly one version marked as storage version");
    }
    let conversion = spec.get("conversion");
    conversion.get("strategy").require_one_of(&["None", "Webhook"]);
    let webhook = conversion.get("webhook");
    match (conversion.get("strategy").str(), webhook.is_set()) {
        ("Webhook", false) => webhook.required("required when strategy is set to Webhook"),
        ("Webhook", true) => {
            crate::server::kinds::admissionregistration::validatingwebhookconfiguration::client_config(
                &webhook.get("clientConfig"),
            );
            webhook.get("conversionReviewVersions").require();
        }
        ("None", true) => webhook.forbidden("should not be set when strategy is not set to Webhook"),
        _ => {}
    }
}

fn validate_names(names: &View<'_>) {
    for field in ["plural", "singular"].map(|f| names.get(f)) {
        field.format(names::dns1035_label);
    }
    for field in ["kind", "listKind"].map(|f| names.get(f)) {
        if let Err(why) = names::dns1035_label(&field.str().to_lowercase()) {
            field.invalid_value(field.str(), format!("may have mixed case, but should otherwise match: {why}"));
        }
    }
    if names.get("kind").str() == names.get("listKind").str() && !names.get("kind").is_empty() {
        names.get("listKind").invalid("kind and listKind may not be the same");
    }
    for list in ["shortNames", "categories"] {
        names.get(list).items().for_each(|name| name.format(names::dns1035_label));
    }
}
