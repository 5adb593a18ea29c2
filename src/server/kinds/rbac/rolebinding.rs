//! RoleBinding (`rbac.authorization.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
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

    fn validate(&self, binding: &Object, errors: &mut Errors) {
        check(binding, errors, |binding| validate_binding(binding, true));
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, validate_change);
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

/// Either kind of binding.
pub fn validate_binding(binding: &View<'_>, is_namespaced: bool) {
    let role = binding.get("roleRef");
    role.get("apiGroup").one_of(&[GROUP]);
    role.get("kind").one_of(if is_namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] });
    if role.get("name").require() {
        role.get("name").format(names::path_segment);
    }
    binding.get("subjects").items().for_each(|subject| validate_subject(&subject, is_namespaced));
}

fn validate_subject(subject: &View<'_>, is_namespaced: bool) {
    let (name, group, namespace) = (subject.get("name"), subject.get("apiGroup"), subject.get("namespace"));
    name.require();
    match subject.get("kind").str() {
        "ServiceAccount" => {
            name.format_if_set(names::dns_subdomain);
            if !group.is_empty() {
                group.not_supported(&[""]);
            }
            if !is_namespaced && namespace.is_empty() {
                namespace.required("");
            }
        }
        kind @ ("User" | "Group") => {
            if name.is_empty() {
                name.invalid_value("", format!("{} name cannot be empty", kind.to_lowercase()));
            }
            group.one_of(&[GROUP]);
        }
        _ => subject.get("kind").not_supported(&["ServiceAccount", "User", "Group"]),
    }
}

/// A binding grants one role for life: delete it and make another.
pub fn validate_change(new: &View<'_>, old: &View<'_>) {
    if new.get("roleRef").value() != old.get("roleRef").value() {
        new.get("roleRef").invalid("cannot change roleRef");
    }
}
