//! RoleBinding (`rbac.authorization.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    storage: "rolebindings",
    columns: COLUMNS,
    strategy: &RoleBinding,
    ..Kind::BASE
};

/// Columns of both bindings.
pub const COLUMNS: &[Column] =
    &[Column::NAME, text("Role"), Column::AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")];

const GROUP: &str = "rbac.authorization.k8s.io";

struct RoleBinding;

impl Strategy for RoleBinding {
    fn default(&self, binding: &mut Object) {
        default_binding(binding);
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        names::path_segment(name)
    }

    fn row(&self, binding: &Object, now: i64) -> Vec<Value> {
        row(binding, now)
    }
}

/// Defaults of both kinds of binding.
pub fn default_binding(binding: &mut Object) {
    if let Some(role) = child(binding, "roleRef") {
        default_zero(role, "apiGroup", GROUP);
    }
    for subject in items(binding, "subjects") {
        if matches!(subject.str_at(&["kind"]), "User" | "Group") {
            default_zero(subject, "apiGroup", GROUP);
        }
    }
}

/// A row of either kind of binding.
pub fn row(binding: &Object, now: i64) -> Vec<Value> {
    let role = |field: &str| binding.str_at(&["roleRef", field]);
    let subjects = |kind: &str, name: fn(&Value) -> String| {
        let subjects = list(binding, "subjects").iter().filter(|s| s.str_at(&["kind"]) == kind);
        Value::from(subjects.map(name).collect::<Vec<_>>().join(", "))
    };
    let plain = |s: &Value| s.str_at(&["name"]).to_owned();
    let account = |s: &Value| format!("{}/{}", s.str_at(&["namespace"]), s.str_at(&["name"]));
    vec![
        binding.name().into(),
        format!("{}/{}", role("kind"), role("name")).into(),
        age(binding, now),
        subjects("User", plain),
        subjects("Group", plain),
        subjects("ServiceAccount", account),
    ]
}
