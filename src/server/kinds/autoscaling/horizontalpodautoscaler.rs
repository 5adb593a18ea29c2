//! HorizontalPodAutoscaler (`autoscaling/v2`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
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
