//! Event (`events.k8s.io/v1`): the other view of the one store of Events. Stored as core `v1` ([`core::event`]).
//!
//! [`core::event`]: crate::server::kinds::core::event

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::{text, wide};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    storage: "events",
    selectable: &[
        "reason",
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reportingController",
        "type",
    ],
    conversion: Some(Conversion { stored: ("", "v1"), to_stored, from_stored }),
    columns: &[
        text("Last Seen"),
        text("Type"),
        text("Reason"),
        text("Object"),
        wide("Subobject"),
        wide("Source"),
        text("Message"),
        wide("First Seen"),
        Column::new("Count", "integer", 1),
        Column { priority: 1, ..Column::NAME },
    ],
    strategy: &Event,
    ..Kind::BASE
};

/// (name here, name in core/v1) of the fields that are named differently; the others keep their names.
const RENAMED: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

struct Event;

impl Strategy for Event {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, event: &Object, errors: &mut Errors) {
        let mut stored = event.clone();
        to_stored(&mut stored);
        core::event::KIND.strategy.validate(&stored, errors);
    }

    fn row(&self, event: &Object, now: i64) -> Vec<Value> {
        let mut stored = event.clone();
        to_stored(&mut stored);
        core::event::row(&stored, now)
    }
}

fn to_stored(event: &mut Object) {
    rename(event, RENAMED.iter().map(|(here, core)| (*here, *core)));
    event.set_at(&["apiVersion"], "v1".into());
}

fn from_stored(event: &mut Object) {
    rename(event, RENAMED.iter().map(|(here, core)| (*core, *here)));
    event.set_at(&["apiVersion"], "events.k8s.io/v1".into());
}

fn rename<'a>(event: &mut Object, names: impl Iterator<Item = (&'a str, &'a str)>) {
    for (from, to) in names {
        if let Some(value) = event.remove_at(&[from]) {
            event.set_at(&[to], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_views_hold_the_same() {
        let view = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"name": "p"}, "note": "text", "reportingController": "c", "deprecatedCount": 2, "reason": "r",
        });
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"},
            "involvedObject": {"name": "p"}, "message": "text", "reportingComponent": "c", "count": 2, "reason": "r",
        });
        let mut stored = view.clone();
        to_stored(&mut stored);
        assert_eq!(stored, core);
        from_stored(&mut stored);
        assert_eq!(stored, view);
    }
}
