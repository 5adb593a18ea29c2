//! CSIDriver (`storage.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{check, check_change};
use crate::server::kinds::*;
use serde_json::json;

pub static KIND: Kind = Kind {
    group: "storage.k8s.io",
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    scope: Scope::Cluster,
    storage: "csidrivers",
    columns: &[
        Column::NAME,
        boolean("AttachRequired"),
        boolean("PodInfoOnMount"),
        boolean("StorageCapacity"),
        text("TokenRequests"),
        boolean("RequiresRepublish"),
        text("Modes"),
        Column::AGE,
    ],
    strategy: &CsiDriver,
    ..Kind::BASE
};

struct CsiDriver;

impl Strategy for CsiDriver {
    fn default(&self, driver: &mut Object) {
        let Some(spec) = child(driver, "spec") else { return };
        default_nil(spec, "attachRequired", true);
        default_nil(spec, "podInfoOnMount", false);
        default_nil(spec, "storageCapacity", false);
        default_nil(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        default_zero(spec, "volumeLifecycleModes", json!(["Persistent"]));
        default_nil(spec, "requiresRepublish", false);
        default_nil(spec, "seLinuxMount", false);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, driver: &Object, errors: &mut Errors) {
        check(driver, errors, |driver| {
            let spec = driver.get("spec");
            podspec::csi_driver_name(&driver.at(&["metadata", "name"]));
            spec.get("volumeLifecycleModes").items().for_each(|mode| mode.one_of(&["Ephemeral", "Persistent"]));
            spec.get("fsGroupPolicy").one_of_if_set(&["File", "None", "ReadWriteOnceWithFSType"]);
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            for field in ["attachRequired", "volumeLifecycleModes"] {
                new.at(&["spec", field]).immutable(&old.at(&["spec", field]));
            }
        });
    }

    fn row(&self, driver: &Object, now: i64) -> Vec<Value> {
        let spec = |key: &str| driver.get("spec").map(|s| list(s, key)).unwrap_or_default();
        let flag = |key: &str| bool_at(driver, &["spec", key]).into();
        let audiences: Vec<&str> = spec("tokenRequests").iter().map(|t| t.str_at(&["audience"])).collect();
        let modes: Vec<&str> = spec("volumeLifecycleModes").iter().filter_map(Value::as_str).collect();
        vec![
            driver.name().into(),
            flag("attachRequired"),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            or(&audiences.join(","), UNSET),
            flag("requiresRepublish"),
            or_none(&modes.join(",")),
            age(driver, now),
        ]
    }
}
