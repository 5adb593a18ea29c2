//! Event (`v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::view::check;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    storage: "events",
    selectable: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
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

struct Event;

impl Strategy for Event {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn selectable_value(&self, event: &Object, field: &str) -> Option<String> {
        let either = |a: &[&str], b: &[&str]| [event.str_at(a), event.str_at(b)].into_iter().find(|s| !s.is_empty());
        match field {
            "source" => either(&["source", "component"], &["reportingComponent"]).map(str::to_owned),
            _ => None,
        }
    }

    fn validate(&self, event: &Object, errors: &mut Errors) {
        check(event, errors, |event| {
            let namespace = event.at(&["metadata", "namespace"]);
            let involved = event.at(&["involvedObject", "namespace"]);
            // Events of cluster-scoped objects live in the default namespace.
            let belongs = if involved.is_empty() {
                ["default", "kube-system"].contains(&namespace.str())
            } else {
                involved.str() == namespace.str()
            };
            if !belongs {
                involved.invalid_value(involved.str(), "does not match event.namespace");
            }
            if event.get("eventTime").is_set() {
                new_style(event);
            }
        });
    }

    fn row(&self, event: &Object, now: i64) -> Vec<Value> {
        row(event, now)
    }
}

/// A row of an event in its stored form.
pub fn row(event: &Object, now: i64) -> Vec<Value> {
    let time = |path: &[&str]| crate::time::age(event.str_at(path), now);
    let is_set = |field: &str| !event.str_at(&[field]).is_empty();
    let first = time(&[if is_set("firstTimestamp") { "firstTimestamp" } else { "eventTime" }]);
    let mut last = if is_set("lastTimestamp") { time(&["lastTimestamp"]) } else { first.clone() };
    let mut times = number(event, &["count"]).max(1);
    if event.at(&["series"]).is_some_and(Value::is_object) {
        last = time(&["series", "lastObservedTime"]);
        times = number(event, &["series", "count"]);
    }
    let (kind, name) =
        (event.str_at(&["involvedObject", "kind"]).to_lowercase(), event.str_at(&["involvedObject", "name"]));
    vec![
        last.into(),
        string(event, &["type"]),
        string(event, &["reason"]),
        if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() },
        string(event, &["involvedObject", "fieldPath"]),
        source(event).into(),
        event.str_at(&["message"]).trim().into(),
        first.into(),
        times.into(),
        event.name().into(),
    ]
}

fn source(event: &Object) -> String {
    let either = |old: &str, new: &str| {
        let old = event.str_at(&["source", old]);
        if old.is_empty() { event.str_at(&[new]) } else { old }.to_owned()
    };
    let (component, host) = (either("component", "reportingComponent"), either("host", "reportingInstance"));
    if host.is_empty() { component } else { format!("{component}, {host}") }
}

/// Rules for events that carry `eventTime`: those made for events.k8s.io.
fn new_style(event: &view::View<'_>) {
    const LIMITS: [(&str, usize); 3] = [("action", 128), ("reason", 128), ("message", 1024)];
    let component = event.get("reportingComponent").named(crate::field::Path::new("reportingController"));
    if component.require() {
        component.formats(names::qualified_name);
    }
    event.get("reportingInstance").require();
    event.get("action").require();
    event.get("reason").require();
    for (field, max) in LIMITS {
        if event.get(field).len() > max {
            event.get(field).invalid(format!("can have at most {max} characters"));
        }
    }
}
