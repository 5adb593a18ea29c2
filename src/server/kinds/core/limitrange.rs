//! LimitRange (`v1`).

use crate::object::Object;
use crate::object::ObjectExt;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    storage: "limitranges",
    strategy: &LimitRange,
    ..Kind::BASE
};

struct LimitRange;

impl Strategy for LimitRange {
    fn default(&self, range: &mut Object) {
        let Some(spec) = child(range, "spec") else { return };
        for item in items(spec, "limits").filter(|i| i.str_at(&["type"]) == "Container") {
            fill(item, "max", "default");
            fill(item, "default", "defaultRequest");
            fill(item, "min", "defaultRequest");
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// Quantities of `from` that `to` lacks.
fn fill(item: &mut Value, from: &str, to: &str) {
    let Some(quantities) = item.get(from).and_then(Value::as_object).filter(|m| !m.is_empty()).cloned() else { return };
    if let Some(target) = child_or_new(item, to) {
        for (name, quantity) in quantities {
            default_nil(target, &name, quantity);
        }
    }
}
