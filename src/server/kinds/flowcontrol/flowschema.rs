//! FlowSchema (`flowcontrol.apiserver.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "flowschemas",
    columns: &[
        Column::NAME,
        text("PriorityLevel"),
        integer("MatchingPrecedence"),
        text("DistinguisherMethod"),
        Column::AGE,
        text("MissingPL"),
    ],
    strategy: &FlowSchema,
    ..Kind::BASE
};

struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, schema: &mut Object) {
        if let Some(spec) = child(schema, "spec") {
            default_zero(spec, "matchingPrecedence", 1000);
        }
    }

    fn row(&self, schema: &Object, now: i64) -> Vec<Value> {
        vec![
            schema.name().into(),
            string(schema, &["spec", "priorityLevelConfiguration", "name"]),
            number(schema, &["spec", "matchingPrecedence"]).into(),
            or_none(schema.str_at(&["spec", "distinguisherMethod", "type"])),
            age(schema, now),
            or(condition(schema, "Dangling"), "?"),
        ]
    }
}
