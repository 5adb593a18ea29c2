//! StorageClass (`storage.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{check, check_change};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    scope: Scope::Cluster,
    short_names: &["sc"],
    storage: "storageclasses",
    columns: &[
        Column::NAME,
        text("Provisioner"),
        text("ReclaimPolicy"),
        text("VolumeBindingMode"),
        boolean("AllowVolumeExpansion"),
        Column::AGE,
    ],
    strategy: &StorageClass,
    ..Kind::BASE
};

const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, class: &mut Object) {
        default_nil(class, "reclaimPolicy", "Delete");
        default_nil(class, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, class: &Object, errors: &mut Errors) {
        check(class, errors, |class| {
            let provisioner = class.get("provisioner");
            if provisioner.require() {
                for why in names::qualified_name(&provisioner.str().to_lowercase()) {
                    provisioner.invalid(why);
                }
            }
            for (key, value) in class.get("parameters").entries() {
                if key.is_empty() {
                    value.named(class.get("parameters").path().clone()).invalid_value("", "field can not be empty.");
                }
            }
            class.get("reclaimPolicy").one_of_if_set(&["Delete", "Retain"]);
            class.get("volumeBindingMode").require_one_of(&["Immediate", "WaitForFirstConsumer"]);
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            for field in ["parameters", "provisioner", "reclaimPolicy"] {
                if !same(Some(new.get(field).value()), Some(old.get(field).value())) {
                    new.get(field).forbidden(format!("updates to {field} are forbidden."));
                }
            }
            new.get("volumeBindingMode").immutable(&old.get("volumeBindingMode"));
        });
    }

    fn row(&self, class: &Object, now: i64) -> Vec<Value> {
        let is_default = DEFAULT_ANNOTATIONS.iter().any(|a| class.str_at(&["metadata", "annotations", a]) == "true");
        let suffix = if is_default { " (default)" } else { "" };
        vec![
            format!("{}{suffix}", class.name()).into(),
            string(class, &["provisioner"]),
            string(class, &["reclaimPolicy"]),
            string(class, &["volumeBindingMode"]),
            bool_at(class, &["allowVolumeExpansion"]).into(),
            age(class, now),
        ]
    }
}
