//! Namespace (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
use crate::server::kinds::*;
use serde_json::json;

pub static KIND: Kind = Kind {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    scope: Scope::Cluster,
    short_names: &["ns"],
    verbs: Verbs::NoCollectionDelete,
    subresources: &[Subresource { name: "finalize", verbs: &["update"], kind: None }, STATUS],
    storage: "namespaces",
    selectable: &["status.phase"],
    columns: &[Column::NAME, text("Status"), Column::AGE],
    strategy: &Namespace,
    ..Kind::BASE
};

/// Every namespace carries its name under this label, so that selectors can name namespaces.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

struct Namespace;

impl Strategy for Namespace {
    fn default(&self, namespace: &mut Object) {
        let name = namespace.name().to_owned();
        if !name.is_empty() {
            namespace.set_at(&["metadata", "labels", NAME_LABEL], name.into());
        }
        if let Some(status) = child_or_new(namespace, "status") {
            default_zero(status, "phase", "Active");
        }
    }

    fn prepare_create(&self, namespace: &mut Object) {
        namespace.set_at(&["status"], json!({"phase": "Active"}));
        let finalizers = namespace.at(&["spec", "finalizers"]).and_then(Value::as_array).cloned().unwrap_or_default();
        if !finalizers.iter().any(|f| f == "kubernetes") {
            let finalizers = finalizers.into_iter().chain(["kubernetes".into()]).collect();
            namespace.set_at(&["spec", "finalizers"], Value::Array(finalizers));
        }
    }

    fn prepare_update(&self, new: &mut Object, old: &Object) {
        // Finalizers of the spec change only through the finalize subresource.
        new.set_at(&["spec"], old.get("spec").cloned().unwrap_or_else(|| json!({})));
    }

    fn prepare_delete(&self, namespace: &mut Object) {
        namespace.set_at(&["status", "phase"], "Terminating".into());
        // What waits is the finalizer, not a grace period.
        namespace.remove_at(&["metadata", "deletionGracePeriodSeconds"]);
    }

    fn holds_deletion(&self, namespace: &Object) -> bool {
        namespace.at(&["spec", "finalizers"]).and_then(Value::as_array).is_some_and(|f| !f.is_empty())
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::dns_label(name)
    }

    fn validate(&self, namespace: &Object, errors: &mut Errors) {
        check(namespace, errors, |namespace| finalizers(&namespace.at(&["spec", "finalizers"])));
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, _| {
            let phase = new.at(&["status", "phase"]).named(crate::field::Path::new("status").child("Phase"));
            let deleting = new.at(&["metadata", "deletionTimestamp"]).is_set();
            match (deleting, phase.str()) {
                (false, "Active") | (true, "Terminating") => {}
                (false, _) => phase.invalid("may only be 'Active' if `deletionTimestamp` is empty"),
                (true, _) => phase.invalid("may only be 'Terminating' if `deletionTimestamp` is not empty"),
            }
        });
    }

    fn row(&self, namespace: &Object, now: i64) -> Vec<Value> {
        vec![namespace.name().into(), string(namespace, &["status", "phase"]), age(namespace, now)]
    }
}

/// Finalizers of the spec: Kubernetes' own, or qualified.
fn finalizers(list: &View<'_>) {
    for finalizer in list.items() {
        finalizer.formats(names::qualified_name);
        let standard = ["kubernetes", "orphan", "foregroundDeletion"].contains(&finalizer.str());
        if !finalizer.str().contains('/') && !standard {
            finalizer.invalid("name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}
