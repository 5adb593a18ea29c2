//! Quality of service class of a pod, from its requests and limits for cpu and memory (KEP-2837 for pod level).

use crate::object::Object;
use crate::quantity::Quantity;
use crate::server::kinds::tree::list;
use serde_json::Value;

const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(pod: &Object) -> &'static str {
    let spec = &pod["spec"];
    let pod_level = spec.get("resources").filter(|r| has_any(r));
    let all: Vec<&Value> = match pod_level {
        Some(resources) => vec![resources],
        None => {
            let containers = ["initContainers", "containers"].into_iter().flat_map(|key| list(spec, key));
            containers.map(|c| c.get("resources").unwrap_or(&Value::Null)).collect()
        }
    };
    if !all.iter().any(|r| has_any(r)) {
        "BestEffort"
    } else if all.iter().all(|r| is_guaranteed(r)) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

fn positive(resources: &Value, side: &str, name: &str) -> Option<Quantity> {
    let quantity = resources.get(side)?.get(name)?.as_str()?.parse::<Quantity>().ok()?;
    (quantity.sign() > 0).then_some(quantity)
}

fn has_any(resources: &Value) -> bool {
    ["requests", "limits"].iter().any(|side| RESOURCES.iter().any(|name| positive(resources, side, name).is_some()))
}

/// Limits for both resources, and requests that equal them.
fn is_guaranteed(resources: &Value) -> bool {
    RESOURCES.iter().all(|name| {
        let limit = positive(resources, "limits", name);
        limit.is_some() && positive(resources, "requests", name).is_none_or(|request| Some(request) == limit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn classes() {
        let full =
            || json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        let some = || json!({"requests": {"cpu": "100m"}});
        for (resources, class_) in [
            (vec![json!({})], "BestEffort"),
            (vec![json!({"limits": {"cpu": "0"}})], "BestEffort"),
            (vec![json!({"limits": {"nvidia.com/gpu": "1"}})], "BestEffort"),
            (vec![full()], "Guaranteed"),
            (vec![full(), full()], "Guaranteed"),
            (vec![full(), json!({})], "Burstable"),
            (vec![some()], "Burstable"),
            (
                vec![json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}})],
                "Burstable",
            ),
        ] {
            let containers: Vec<Value> = resources.iter().map(|r| json!({"resources": r})).collect();
            assert_eq!(class(&json!({"spec": {"containers": containers}})), class_, "{resources:?}");
        }
        let pod = json!({"spec": {"resources": full(), "containers": [{"resources": some()}]}});
        assert_eq!(class(&pod), "Guaranteed");
    }
}
