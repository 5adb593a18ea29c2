//! LimitRanger: a namespace's LimitRanges fill in what containers leave open, and refuse what is out of range.

use super::{Operation, Plugin, Reader, Request, forbidden, items};
use crate::object::{Object, ObjectExt};
use crate::quantity::Quantity;
use crate::status::Result;
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Quantity>;

pub struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    async fn admit(&self, request: &mut Request<'_>, reader: &dyn Reader) -> Result<()> {
        if request.operation != Operation::Create || !request.is_main("", "pods") {
            return Ok(());
        }
        let ranges = reader.list("", "limitranges", &request.info.namespace).await?;
        let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
        for range in &ranges {
            fill_in(pod, range);
        }
        Ok(())
    }

    async fn validate(&self, request: &Request<'_>, reader: &dyn Reader) -> Result<()> {
        let is_pod = request.is_main("", "pods") && request.operation == Operation::Create;
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        let is_claim = request.is_main("", "persistentvolumeclaims") && is_write;
        let Some(object) = request.object.as_deref().filter(|o| (is_pod || is_claim) && !o.is_deleting()) else {
            return Ok(());
        };
        for range in reader.list("", "limitranges", &request.info.namespace).await? {
            let mut errors = Vec::new();
            for limit in items(&range, &["spec", "limits"]) {
                if is_pod { check_pod(object, limit, &mut errors) } else { check_claim(object, limit, &mut errors) }
            }
            match errors.as_slice() {
                [] => {}
                [one] => return Err(forbidden(request, one)),
                many => return Err(forbidden(request, format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

/// The quantities of a map; what does not parse is left to validation.
fn amounts(value: Option<&Value>) -> Amounts {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(name, v)| Some((name.clone(), v.as_str()?.parse().ok()?))).collect()
}

/// Defaults of a `Container` limit: (requests, limits). What is not said follows from max, default and min.
fn container_defaults(range: &Object) -> (BTreeMap<String, Value>, BTreeMap<String, Value>) {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    for limit in items(range, &["spec", "limits"]).filter(|l| l.str_at(&["type"]) == "Container") {
        let add = |into: &mut BTreeMap<String, Value>, sources: &[&str]| {
            for (name, value) in sources.iter().filter_map(|s| limit.get(*s)?.as_object()).flatten() {
                into.entry(name.clone()).or_insert_with(|| value.clone());
            }
        };
        add(&mut limits, &["default", "max"]);
        add(&mut requests, &["defaultRequest", "default", "max", "min"]);
    }
    (requests, limits)
}

fn fill_in(pod: &mut Object, range: &Object) {
    let (requests, limits) = container_defaults(range);
    let mut notes = Vec::new();
    for (list, what) in [("initContainers", "init container"), ("containers", "container")] {
        let Some(containers) = pod.get_mut("spec").and_then(|s| s.get_mut(list)).and_then(Value::as_array_mut) else {
            continue;
        };
        for container in containers {
            let name = container.str_at(&["name"]).to_owned();
            for (kind, defaults) in [("requests", &requests), ("limits", &limits)] {
                let set = set_missing(container, kind, defaults);
                if !set.is_empty() {
                    let singular = kind.trim_end_matches('s');
                    notes.push(format!("{} {singular} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.set_at(&["metadata", "annotations", ANNOTATION], note.into());
    }
}

/// Names of the resources that had no value.
fn set_missing(container: &mut Value, kind: &str, defaults: &BTreeMap<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, value) in defaults {
        if container.at(&["resources", kind, name]).is_none() {
            container.set_at(&["resources", kind, name], value.clone());
            set.push(name.clone());
        }
    }
    set
}

fn check_pod(pod: &Object, limit: &Value, errors: &mut Vec<String>) {
    match limit.str_at(&["type"]) {
        "Container" => {
            for container in ["initContainers", "containers"].iter().flat_map(|l| items(pod, &["spec", l])) {
                let (requests, limits) = of_container(container);
                check("Container", limit, &requests, &limits, errors);
            }
        }
        "Pod" => {
            let (requests, limits) = of_pod(pod);
            check("Pod", limit, &requests, &limits, errors);
        }
        _ => {}
    }
}

fn of_container(container: &Value) -> (Amounts, Amounts) {
    (amounts(container.at(&["resources", "requests"])), amounts(container.at(&["resources", "limits"])))
}

/// What a whole pod needs: containers and sidecars together, or one init container with the sidecars before it,
/// whichever is more (KEP-753).
fn of_pod(pod: &Object) -> (Amounts, Amounts) {
    let of = |pick: fn((Amounts, Amounts)) -> Amounts| {
        let mut total = Amounts::new();
        for container in items(pod, &["spec", "containers"]) {
            add(&mut total, &pick(of_container(container)));
        }
        let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
        for container in items(pod, &["spec", "initContainers"]) {
            let mut own = pick(of_container(container));
            if container.str_at(&["restartPolicy"]) == "Always" {
                add(&mut total, &own);
                add(&mut sidecars, &own);
                own = sidecars.clone();
            } else {
                add(&mut own, &sidecars);
            }
            raise(&mut peak, &own);
        }
        raise(&mut total, &peak);
        total
    };
    (of(|(requests, _)| requests), of(|(_, limits)| limits))
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or(*amount, |have| *have + *amount);
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if total.get(name).is_none_or(|have| have < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

fn check(kind: &str, limit: &Value, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    for (name, min) in amounts(limit.get("min")) {
        let start = format!("minimum {name} usage per {kind} is {min}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => errors.push(format!("{start}.  No request is specified")),
            (Some(request), _) if *request < min => errors.push(format!("{start}, but request is {request}")),
            (_, Some(limit)) if *limit < min => errors.push(format!("{start}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, max) in amounts(limit.get("max")) {
        let start = format!("maximum {name} usage per {kind} is {max}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => errors.push(format!("{start}.  No limit is specified")),
            (_, Some(limit)) if *limit > max => errors.push(format!("{start}, but limit is {limit}")),
            (Some(request), _) if *request > max => errors.push(format!("{start}, but request is {request}")),
            _ => {}
        }
    }
    for (name, ratio) in amounts(limit.get("maxLimitRequestRatio")) {
        let start = format!("{name} max limit to request ratio per {kind} is {ratio}");
        let milli = |map: &Amounts| map.get(&name).map_or(0, Quantity::milli_value) as f64;
        let (request, limit) = (milli(requests), milli(limits));
        if request == 0.0 {
            errors.push(format!("{start}, but no request is specified or request is 0"));
        } else if limit == 0.0 {
            errors.push(format!("{start}, but no limit is specified or limit is 0"));
        } else if limit / request > ratio.milli_value() as f64 / 1000.0 {
            errors.push(format!("{start}, but provided ratio is {:.6}", limit / request));
        }
    }
}

fn check_claim(claim: &Object, limit: &Value, errors: &mut Vec<String>) {
    if limit.str_at(&["type"]) != "PersistentVolumeClaim" {
        return;
    }
    let requests = amounts(claim.at(&["spec", "resources", "requests"]));
    for (bound, word) in [("min", "minimum"), ("max", "maximum")] {
        for (name, allowed) in amounts(limit.get(bound)) {
            let start = format!("{word} {name} usage per PersistentVolumeClaim is {allowed}");
            match requests.get(&name) {
                None => errors.push(format!("{start}.  No request is specified")),
                Some(asked) if (bound == "min" && *asked < allowed) || (bound == "max" && *asked > allowed) => {
                    errors.push(format!("{start}, but request is {asked}"));
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: Value) -> Object {
        json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    #[test]
    fn defaults_fill_gaps() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "max": {"memory": "1Gi"},
                                                "defaultRequest": {"cpu": "100m"}}]}});
        let mut given = pod(json!({"limits": {"cpu": "2"}}));
        fill_in(&mut given, &range);
        let resources = &given["spec"]["containers"][0]["resources"];
        assert_eq!(
            *resources,
            json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
        );
        let note = "LimitRanger plugin set: cpu, memory request for container c; memory limit for container c";
        assert_eq!(given["metadata"]["annotations"][ANNOTATION], note);
        let before = given.clone();
        fill_in(&mut given, &range);
        assert_eq!(given, before);
    }

    #[test]
    fn limits_are_kept() {
        let limit = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "4"}});
        let cases = [
            (json!({"requests": {"cpu": "250m"}, "limits": {"cpu": "1"}}), vec![]),
            (
                json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "100m"}}),
                vec!["minimum cpu usage per Container is 100m, but request is 50m"],
            ),
            (
                json!({"requests": {"cpu": "200m"}, "limits": {"cpu": "2"}}),
                vec![
                    "maximum cpu usage per Container is 1, but limit is 2",
                    "cpu max limit to request ratio per Container is 4, but provided ratio is 10.000000",
                ],
            ),
            (
                json!({}),
                vec![
                    "minimum cpu usage per Container is 100m.  No request is specified",
                    "maximum cpu usage per Container is 1.  No limit is specified",
                    "cpu max limit to request ratio per Container is 4, but no request is specified or request is 0",
                ],
            ),
        ];
        for (resources, want) in cases {
            let mut errors = Vec::new();
            check_pod(&pod(resources.clone()), &limit, &mut errors);
            assert_eq!(errors, want, "{resources}");
        }
    }

    #[test]
    fn a_pod_needs_its_peak() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("1");
        sidecar["restartPolicy"] = "Always".into();
        let pod = json!({"spec": {"containers": [container("1"), container("1")], "initContainers": [sidecar, container("5")]}});
        assert_eq!(of_pod(&pod).0["cpu"].to_string(), "6");
    }
}
