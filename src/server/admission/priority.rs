//! Priority: a pod's class becomes its number; there is one default class.

use super::{Operation, Plugin, Reader, Request, forbidden};
use crate::object::{Object, ObjectExt};
use crate::status::Result;
use async_trait::async_trait;
use serde_json::Value;

const GROUP: &str = "scheduling.k8s.io";
const RESOURCE: &str = "priorityclasses";
const PREEMPT: &str = "PreemptLowerPriority";

pub struct Priority;

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, request: &mut Request<'_>, reader: &dyn Reader) -> Result<()> {
        if !request.is_main("", "pods") {
            return Ok(());
        }
        match request.operation {
            Operation::Create => assign(request, reader).await,
            Operation::Update => {
                keep(request);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn validate(&self, request: &Request<'_>, reader: &dyn Reader) -> Result<()> {
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        let Some(class) = request.object.as_deref().filter(|_| is_write && request.is_main(GROUP, RESOURCE)) else {
            return Ok(());
        };
        if !is_default(class) {
            return Ok(());
        }
        let all = reader.list(GROUP, RESOURCE, "").await?;
        match all.iter().find(|c| is_default(c) && c.name() != class.name()) {
            None => Ok(()),
            Some(other) => {
                let name = other.name();
                let why =
                    format!("PriorityClass {name} is already marked as globalDefault. Only one default can exist");
                Err(forbidden(request, why))
            }
        }
    }
}

fn is_default(class: &Object) -> bool {
    class.get("globalDefault").and_then(Value::as_bool).unwrap_or(false)
}

/// An update without a priority keeps the old one.
fn keep(request: &mut Request<'_>) {
    let (Some(pod), Some(old)) = (request.object.as_deref_mut(), request.old) else { return };
    for field in ["priority", "preemptionPolicy"] {
        let has = pod.at(&["spec", field]).is_some_and(|v| !v.is_null());
        if let Some(value) = old.at(&["spec", field]).filter(|_| !has) {
            pod.set_at(&["spec", field], value.clone());
        }
    }
}

async fn assign(request: &mut Request<'_>, reader: &dyn Reader) -> Result<()> {
    let Some(pod) = request.object.as_deref() else { return Ok(()) };
    let name = pod.str_at(&["spec", "priorityClassName"]).to_owned();
    let class = if name.is_empty() {
        let all = reader.list(GROUP, RESOURCE, "").await?;
        // Several defaults can only come from races: the lowest counts.
        all.into_iter().filter(is_default).min_by_key(value_of)
    } else {
        let found = reader.get(GROUP, RESOURCE, "", &name).await?;
        if found.is_none() {
            return Err(forbidden(request, format!("no PriorityClass with name {name} was found")));
        }
        found
    };
    let value = class.as_ref().map_or(0, value_of);
    let policy = class.as_ref().map_or("", |c| c.str_at(&["preemptionPolicy"]));
    let policy = if policy.is_empty() { PREEMPT } else { policy };
    let suffix = "from the given PriorityClass name";
    if let Some(given) = pod.at(&["spec", "priority"]).and_then(Value::as_i64).filter(|g| *g != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} {suffix}"
        );
        return Err(forbidden(request, why));
    }
    let given = pod.str_at(&["spec", "preemptionPolicy"]);
    if !given.is_empty() && given != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} {suffix}"
        );
        return Err(forbidden(request, why));
    }
    let policy = policy.to_owned();
    let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
    if let Some(class) = class.filter(|_| name.is_empty()) {
        pod.set_at(&["spec", "priorityClassName"], class.name().into());
    }
    pod.set_at(&["spec", "priority"], value.into());
    pod.set_at(&["spec", "preemptionPolicy"], policy.into());
    Ok(())
}

fn value_of(class: &Object) -> i64 {
    class.get("value").and_then(Value::as_i64).unwrap_or(0)
}
