//! ControllerRevision (`apps/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{check, check_change};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    storage: "controllerrevisions",
    columns: &[Column::NAME, text("Controller"), integer("Revision"), Column::AGE],
    strategy: &ControllerRevision,
    ..Kind::BASE
};

struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, revision: &Object, errors: &mut Errors) {
        check(revision, errors, |revision| {
            if !revision.get("data").is_set() {
                revision.get("data").required("data is mandatory");
            }
            revision.get("revision").non_negative();
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| new.get("data").immutable(&old.get("data")));
    }

    fn row(&self, revision: &Object, now: i64) -> Vec<Value> {
        vec![
            revision.name().into(),
            controller(revision).into(),
            number(revision, &["revision"]).into(),
            age(revision, now),
        ]
    }
}

/// `statefulset.apps/web`
fn controller(revision: &Object) -> String {
    let owners = list(&revision["metadata"], "ownerReferences");
    let Some(owner) = owners.iter().find(|o| bool_at(o, &["controller"])) else { return NONE.to_owned() };
    let (group, _) = crate::object::split_api_version(owner.str_at(&["apiVersion"]));
    let kind = owner.str_at(&["kind"]).to_lowercase();
    let dot = if group.is_empty() { "" } else { "." };
    format!("{kind}{dot}{group}/{}", owner.str_at(&["name"]))
}
