//! ResourceClaimTemplate (`resource.k8s.io/v1`).

use super::resourceclaim::default_spec;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::age;
use crate::server::kinds::tree::descend;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "resource.k8s.io",
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    storage: "resourceclaimtemplates",
    columns: &[Column::NAME, Column::AGE],
    strategy: &ResourceClaimTemplate,
    ..Kind::BASE
};

struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, template: &mut Object) {
        if let Some(spec) = descend(template, &["spec", "spec"]) {
            default_spec(spec);
        }
    }

    fn row(&self, template: &Object, now: i64) -> Vec<Value> {
        vec![template.name().into(), age(template, now)]
    }
}
