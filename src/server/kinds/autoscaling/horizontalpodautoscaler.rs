//! HorizontalPodAutoscaler (`autoscaling/v2`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check};
use crate::server::kinds::*;
use serde_json::json;

pub static KIND: Kind = Kind {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[STATUS],
    storage: "horizontalpodautoscalers",
    columns: COLUMNS,
    strategy: &HorizontalPodAutoscaler,
    ..Kind::BASE
};

/// Columns of both versions.
pub const COLUMNS: &[Column] = &[
    Column::NAME,
    text("Reference"),
    text("Targets"),
    text("MinPods"),
    text("MaxPods"),
    integer("Replicas"),
    Column::AGE,
];

struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, hpa: &mut Object) {
        let Some(spec) = child(hpa, "spec") else { return };
        default_nil(spec, "minReplicas", 1);
        let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
        default_zero(spec, "metrics", json!([{"type": "Resource", "resource": cpu}]));
        if let Some(behavior) = child(spec, "behavior") {
            default_behavior(behavior);
        }
    }

    fn validate(&self, hpa: &Object, errors: &mut Errors) {
        check(hpa, errors, |hpa| validate_spec(&hpa.get("spec")));
    }

    fn row(&self, hpa: &Object, now: i64) -> Vec<Value> {
        row(hpa, now)
    }
}

/// Scaling rules as KEP-853: up fast, down within the default stabilization window.
fn default_behavior(behavior: &mut Value) {
    let percent = || json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    if let Some(up) = child_or_new(behavior, "scaleUp") {
        default_nil(up, "stabilizationWindowSeconds", 0);
        default_nil(up, "selectPolicy", "Max");
        default_zero(up, "policies", json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, percent()]));
    }
    if let Some(down) = child_or_new(behavior, "scaleDown") {
        default_nil(down, "selectPolicy", "Max");
        default_zero(down, "policies", json!([percent()]));
    }
}

/// A row of an autoscaler in its stored form.
pub fn row(hpa: &Object, now: i64) -> Vec<Value> {
    let target = |field: &str| hpa.str_at(&["spec", "scaleTargetRef", field]);
    let min = int_at(hpa, &["spec", "minReplicas"]);
    vec![
        hpa.name().into(),
        format!("{}/{}", target("kind"), target("name")).into(),
        targets(hpa).into(),
        min.map_or_else(|| UNSET.into(), |n| n.to_string().into()),
        number(hpa, &["spec", "maxReplicas"]).to_string().into(),
        number(hpa, &["status", "currentReplicas"]).into(),
        age(hpa, now),
    ]
}

/// Metrics that a row shows before ` + N more...`.
const SHOWN: usize = 2;

/// `cpu: 10%/80%, 5/10 (avg)`
fn targets(hpa: &Object) -> String {
    let metrics = list(&hpa["spec"], "metrics");
    let current = hpa.get("status").map(|s| list(s, "currentMetrics")).unwrap_or_default();
    if metrics.is_empty() {
        return NONE.to_owned();
    }
    let show = |(i, metric): (usize, &Value)| target(metric, current.get(i));
    let shown: Vec<String> = metrics.iter().take(SHOWN).enumerate().map(show).collect();
    let shown = shown.join(", ");
    if metrics.len() > SHOWN { format!("{shown} + {} more...", metrics.len() - SHOWN) } else { shown }
}

/// One metric: what is measured over what is wanted.
fn target(metric: &Value, status: Option<&Value>) -> String {
    let kind = metric.str_at(&["type"]);
    let source = match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let wanted = |field: &str| metric.at(&[source, "target", field]).filter(|v| !v.is_null());
    let is = |field: &str| status.and_then(|s| s.at(&[source, "current", field])).filter(|v| !v.is_null());
    let known = |value: Option<&Value>, unit: &str| match value {
        Some(Value::String(_)) => quantity(value),
        Some(value) => format!("{value}{unit}"),
        None => UNKNOWN.to_owned(),
    };
    let prefix = match source {
        "resource" | "containerResource" => format!("{}: ", metric.str_at(&[source, "name"])),
        _ => String::new(),
    };
    let average = if matches!(source, "object" | "external") { " (avg)" } else { "" };
    if let Some(value) = wanted("averageValue") {
        let is = known(is("averageValue"), "");
        return format!("{prefix}{is}/{}{average}", quantity(Some(value)));
    }
    if let Some(percent) = wanted("averageUtilization") {
        return format!("{prefix}{}/{percent}%", known(is("averageUtilization"), "%"));
    }
    match wanted("value") {
        Some(value) => format!("{}/{}", known(is("value"), ""), quantity(Some(value))),
        None => format!("{prefix}{UNKNOWN}/<auto>"),
    }
}

const METRICS: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// The spec in its stored form.
pub fn validate_spec(spec: &View<'_>) {
    let (min, max) = (spec.get("minReplicas"), spec.get("maxReplicas"));
    if min.int().is_some_and(|n| n < 1) {
        min.invalid("must be greater than or equal to 1");
    }
    if max.number() < 1 {
        max.invalid_value(max.number(), "must be greater than 0");
    }
    if min.int().is_some_and(|min| max.number() < min) {
        max.invalid_value(max.number(), "must be greater than or equal to `minReplicas`");
    }
    reference(&spec.get("scaleTargetRef"));
    spec.get("metrics").items().for_each(|metric| validate_metric(&metric));
    for direction in ["scaleUp", "scaleDown"] {
        let scaling = spec.get("behavior").get(direction);
        let window = scaling.get("stabilizationWindowSeconds");
        if window.int().is_some_and(|s| !(0..=3600).contains(&s)) {
            window.invalid("must be less than or equal to 3600 and greater than or equal to zero");
        }
        scaling.get("selectPolicy").one_of_if_set(&["Disabled", "Max", "Min"]);
        for policy in scaling.get("policies").items() {
            policy.get("type").one_of(&["Percent", "Pods"]);
            for field in ["value", "periodSeconds"] {
                if policy.get(field).number() <= 0 {
                    policy.get(field).invalid_value(policy.get(field).number(), "must be greater than zero");
                }
            }
        }
    }
}

fn reference(reference: &View<'_>) {
    for field in ["kind", "name"].map(|f| reference.get(f)) {
        if field.require() {
            field.format(names::path_segment);
        }
    }
}

fn validate_metric(metric: &View<'_>) {
    let kind = metric.get("type");
    if kind.is_empty() {
        kind.required("must specify a metric source type");
    }
    let Some((_, expected)) = METRICS.iter().find(|(name, _)| *name == kind.str()) else {
        return kind.not_supported(&METRICS.map(|(name, _)| name));
    };
    let source = metric.get(expected);
    if !source.is_set() {
        return source.required("must populate information for the given metric source");
    }
    for other in METRICS.iter().filter(|(_, field)| field != expected).map(|(_, f)| metric.get(f)) {
        if other.is_set() {
            other.forbidden("must populate the given metric source only");
        }
    }
    match *expected {
        "resource" | "containerResource" => {
            if source.get("name").is_empty() {
                source.get("name").required("must specify a resource name");
            }
            if *expected == "containerResource" && source.get("container").is_empty() {
                source.get("container").required("must specify a container");
            }
        }
        _ => {
            let name = source.at(&["metric", "name"]);
            if name.is_empty() {
                name.required("must specify a metric name");
            }
            rules::label_selector(&source.at(&["metric", "selector"]));
        }
    }
    if *expected == "object" {
        reference(&source.get("describedObject"));
    }
    metric_target(&source.get("target"), expected);
}

fn metric_target(target: &View<'_>, source: &str) {
    let kind = target.get("type");
    if kind.is_empty() {
        kind.required("must specify a metric target type");
    } else {
        kind.one_of(&["AverageValue", "Utilization", "Value"]);
    }
    for field in ["value", "averageValue"].map(|f| target.get(f)) {
        if field.quantity().is_some_and(|q| q.sign() <= 0) {
            field.invalid("must be positive");
        }
    }
    let percent = target.get("averageUtilization");
    if percent.int().is_some_and(|p| p < 1) {
        percent.invalid("must be greater than 0");
    }
    let (value, average) = (target.get("value"), target.get("averageValue"));
    match source {
        "resource" | "containerResource" => match (percent.is_set(), average.is_set()) {
            (false, false) => percent.required("must set either a target raw value or a target utilization"),
            (true, true) => average.forbidden("may not set both a target raw value and a target utilization"),
            _ => {}
        },
        "pods" if !average.is_set() => average.required("must specify a positive target averageValue"),
        "object" | "external" if !average.is_set() && !value.is_set() => {
            average.required("must set either a target value for metric or a per-pod target");
        }
        "object" | "external" if average.is_set() && value.is_set() => {
            value.forbidden("may not set both a target value for metric and a per-pod target");
        }
        _ => {}
    }
}
