//! StorageClass (`storage.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
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
