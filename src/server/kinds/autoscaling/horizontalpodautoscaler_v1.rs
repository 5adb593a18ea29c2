//! HorizontalPodAutoscaler (`autoscaling/v1`): the old view of the one store; stored as `v2`.
//!
//! What v1 has no fields for travels in annotations, as upstream: other metrics, current metrics, conditions and
//! behavior under `autoscaling.alpha.kubernetes.io/`.

use super::horizontalpodautoscaler::{COLUMNS, row};
use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::tree::{child, default_nil};
use crate::server::kinds::*;
use serde_json::{Map, json};

pub static KIND: Kind = Kind {
    group: "autoscaling",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[STATUS],
    storage: "horizontalpodautoscalers",
    columns: COLUMNS,
    conversion: Some(Conversion { stored: ("autoscaling", "v2"), to_stored, from_stored }),
    strategy: &HorizontalPodAutoscaler,
    ..Kind::BASE
};

struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, hpa: &mut Object) {
        if let Some(spec) = child(hpa, "spec") {
            default_nil(spec, "minReplicas", 1);
        }
    }

    fn validate(&self, hpa: &Object, errors: &mut Errors) {
        let mut stored = hpa.clone();
        to_stored(&mut stored);
        view::check(&stored, errors, |hpa| super::horizontalpodautoscaler::validate_spec(&hpa.get("spec")));
    }

    fn row(&self, hpa: &Object, now: i64) -> Vec<Value> {
        let mut stored = hpa.clone();
        to_stored(&mut stored);
        row(&stored, now)
    }
}

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn to_stored(hpa: &mut Object) {
    hpa.set_at(&["apiVersion"], "autoscaling/v2".into());
    let mut metrics = Vec::new();
    if let Some(percent) = hpa.remove_at(&["spec", "targetCPUUtilizationPercentage"]).filter(|v| !v.is_null()) {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    let others = take_annotation(hpa, METRICS);
    metrics.extend(others.iter().flat_map(items).filter_map(|m| convert_metric(m, &Side::Spec.fields(), up)));
    if !metrics.is_empty() {
        hpa.set_at(&["spec", "metrics"], metrics.into());
    }
    if let Some(behavior) = take_annotation(hpa, BEHAVIOR) {
        hpa.set_at(&["spec", "behavior"], map_keys(&behavior, lower_first));
    }
    let percent = hpa.remove_at(&["status", "currentCPUUtilizationPercentage"]).filter(|v| !v.is_null());
    let mut current = Vec::new();
    let listed = take_annotation(hpa, CURRENT_METRICS);
    current.extend(listed.iter().flat_map(items).filter_map(|m| convert_metric(m, &Side::Status.fields(), up)));
    if let Some(percent) = percent.filter(|_| !current.iter().any(is_cpu)) {
        let value = json!({"averageUtilization": percent});
        current.insert(0, json!({"type": "Resource", "resource": {"name": "cpu", "current": value}}));
    }
    if !current.is_empty() {
        hpa.set_at(&["status", "currentMetrics"], current.into());
    }
    if let Some(conditions) = take_annotation(hpa, CONDITIONS) {
        hpa.set_at(&["status", "conditions"], conditions);
    }
}

fn from_stored(hpa: &mut Object) {
    hpa.set_at(&["apiVersion"], "autoscaling/v1".into());
    let metrics = hpa.remove_at(&["spec", "metrics"]);
    let mut others = Vec::new();
    for metric in metrics.iter().flat_map(items) {
        let percent = metric.at(&["resource", "target", "averageUtilization"]).filter(|v| !v.is_null());
        match percent {
            Some(percent) if is_cpu(metric) && hpa.at(&["spec", "targetCPUUtilizationPercentage"]).is_none() => {
                let percent = percent.clone();
                hpa.set_at(&["spec", "targetCPUUtilizationPercentage"], percent);
            }
            _ => others.extend(convert_metric(metric, &Side::Spec.fields(), down)),
        }
    }
    set_annotation(hpa, METRICS, others);
    if let Some(behavior) = hpa.remove_at(&["spec", "behavior"]).filter(|v| !v.is_null()) {
        let text = map_keys(&behavior, upper_first).to_string();
        hpa.set_at(&["metadata", "annotations", BEHAVIOR], text.into());
    }
    let current = hpa.remove_at(&["status", "currentMetrics"]);
    let cpu = current.iter().flat_map(items).find(|m| is_cpu(m));
    if let Some(percent) = cpu.and_then(|m| m.at(&["resource", "current", "averageUtilization"])).cloned() {
        hpa.set_at(&["status", "currentCPUUtilizationPercentage"], percent);
    }
    let current = current.iter().flat_map(items);
    let current = current.filter_map(|m| convert_metric(m, &Side::Status.fields(), down)).collect();
    set_annotation(hpa, CURRENT_METRICS, current);
    let conditions = hpa.remove_at(&["status", "conditions"]);
    set_annotation(hpa, CONDITIONS, conditions.iter().flat_map(items).cloned().collect());
}

fn is_cpu(metric: &Value) -> bool {
    metric.str_at(&["type"]) == "Resource" && metric.str_at(&["resource", "name"]) == "cpu"
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The annotation's JSON value; the annotation is removed. Text that is not JSON counts as absent, as upstream.
fn take_annotation(hpa: &mut Object, name: &str) -> Option<Value> {
    let text = hpa.remove_at(&["metadata", "annotations", name])?;
    if hpa.annotations().is_some_and(Map::is_empty) {
        hpa.remove_at(&["metadata", "annotations"]);
    }
    serde_json::from_str(text.as_str()?).ok()
}

fn set_annotation(hpa: &mut Object, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        hpa.set_at(&["metadata", "annotations", name], Value::Array(list).to_string().into());
    }
}

/// Which half of a metric is converted: what is wanted or what is measured.
enum Side {
    Spec,
    Status,
}

/// Names of the flat v1 fields and of the v2 struct they fold into.
struct Fields {
    nested: &'static str,
    value: &'static str,
    average_value: &'static str,
    average_utilization: &'static str,
}

impl Side {
    fn fields(&self) -> Fields {
        match self {
            Side::Spec => Fields {
                nested: "target",
                value: "targetValue",
                average_value: "targetAverageValue",
                average_utilization: "targetAverageUtilization",
            },
            Side::Status => Fields {
                nested: "current",
                value: "currentValue",
                average_value: "currentAverageValue",
                average_utilization: "currentAverageUtilization",
            },
        }
    }
}

type Convert = fn(&str, &mut Map<String, Value>, &Fields);

/// One metric with its source converted by `up` (v1 → v2) or `down`.
fn convert_metric(metric: &Value, fields: &Fields, convert: Convert) -> Option<Value> {
    let kind = metric.get("type")?.as_str()?;
    let key = lower_first(kind);
    let mut source = metric.get(&key)?.as_object()?.clone();
    convert(&key, &mut source, fields);
    Some(json!({"type": kind, key: source}))
}

/// v1 → v2: the flat target becomes `target: {type, value…}`, the metric's name `metric: {name, selector}`.
fn up(kind: &str, source: &mut Map<String, Value>, fields: &Fields) {
    if kind == "object"
        && let Some(described) = source.remove("target")
    {
        source.insert("describedObject".into(), described);
    }
    let mut nested = Map::new();
    // In v1 an object metric's average has no prefix.
    let average_value = if kind == "object" { "averageValue" } else { fields.average_value };
    for (flat, key, target) in [
        (fields.average_utilization, "averageUtilization", "Utilization"),
        (average_value, "averageValue", "AverageValue"),
        (fields.value, "value", "Value"),
    ] {
        let Some(value) = source.remove(flat).filter(|v| !v.is_null()) else { continue };
        if nested.is_empty() && fields.nested == "target" {
            nested.insert("type".into(), target.into());
        }
        nested.insert(key.into(), value);
    }
    // An object metric needs a targetValue in v1: "0" beside an average is only that.
    if nested.contains_key("averageValue") && nested.get("value").is_some_and(|v| v == "0") {
        nested.remove("value");
    }
    source.insert(fields.nested.into(), nested.into());
    if let Some(name) = source.remove("metricName") {
        let selector_key = if kind == "external" { "metricSelector" } else { "selector" };
        let mut metric = Map::from_iter([("name".to_owned(), name)]);
        metric.extend(source.remove(selector_key).map(|s| ("selector".to_owned(), s)));
        source.insert("metric".into(), metric.into());
    }
}

/// v2 → v1, the inverse of [`up`].
fn down(kind: &str, source: &mut Map<String, Value>, fields: &Fields) {
    let nested = source.remove(fields.nested).unwrap_or_default();
    if let Some(described) = source.remove("describedObject") {
        source.insert("target".into(), described);
    }
    let average_value = if kind == "object" { "averageValue" } else { fields.average_value };
    for (flat, key) in
        [(fields.average_utilization, "averageUtilization"), (average_value, "averageValue"), (fields.value, "value")]
    {
        if let Some(value) = nested.get(key).filter(|v| !v.is_null()) {
            source.insert(flat.into(), value.clone());
        }
    }
    if kind == "object" && !source.contains_key(fields.value) {
        source.insert(fields.value.into(), "0".into());
    }
    if let Some(Value::Object(mut metric)) = source.remove("metric") {
        source.extend(metric.remove("name").map(|n| ("metricName".to_owned(), n)));
        let selector_key = if kind == "external" { "metricSelector" } else { "selector" };
        source.extend(metric.remove("selector").map(|s| (selector_key.to_owned(), s)));
    }
}

/// The behavior annotation has Go's field names (`ScaleUp`), the API `scaleUp`.
fn map_keys(value: &Value, rename: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (rename(k), map_keys(v, rename))).collect(),
        Value::Array(list) => list.iter().map(|v| map_keys(v, rename)).collect(),
        other => other.clone(),
    }
}

fn lower_first(s: &str) -> String {
    let mut chars = s.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn upper_first(s: &str) -> String {
    let mut chars = s.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_is_a_view_of_v2() {
        let v2 = json!({
            "apiVersion": "autoscaling/v2", "metadata": {"name": "h"},
            "spec": {
                "maxReplicas": 5,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu",
                        "target": {"type": "Utilization", "averageUtilization": 60}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                        "metric": {"name": "rps"}, "target": {"type": "Value", "value": "10"}}},
                    {"type": "External", "external": {"metric": {"name": "q", "selector": {}},
                        "target": {"type": "AverageValue", "averageValue": "3"}}},
                ],
                "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0}},
            },
            "status": {
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 50, "averageValue": "100m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}],
            },
        });
        let mut v1 = v2.clone();
        from_stored(&mut v1);
        assert_eq!(v1["spec"], json!({"maxReplicas": 5, "targetCPUUtilizationPercentage": 60}));
        assert_eq!(v1["status"], json!({"currentCPUUtilizationPercentage": 50}));
        let behavior = v1.str_at(&["metadata", "annotations", BEHAVIOR]);
        assert_eq!(behavior, r#"{"ScaleUp":{"StabilizationWindowSeconds":0}}"#);
        to_stored(&mut v1);
        assert_eq!(v1, v2);
    }
}
