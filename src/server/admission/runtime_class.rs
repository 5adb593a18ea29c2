//! RuntimeClass: what a class says about overhead and placement goes into its pods.

use super::{Operation, Plugin, Reader, Request, array_mut, forbidden, items};
use crate::object::ObjectExt;
use crate::status::Result;
use async_trait::async_trait;
use serde_json::Value;

pub struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn admit(&self, request: &mut Request<'_>, reader: &dyn Reader) -> Result<()> {
        if request.operation != Operation::Create || !request.is_main("", "pods") {
            return Ok(());
        }
        let Some(pod) = request.object.as_deref() else { return Ok(()) };
        let name = pod.str_at(&["spec", "runtimeClassName"]).to_owned();
        let overhead = pod.at(&["spec", "overhead"]).filter(|v| v.as_object().is_some_and(|m| !m.is_empty())).cloned();
        if name.is_empty() {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return if overhead.is_some() { Err(forbidden(request, why)) } else { Ok(()) };
        }
        let Some(class) = reader.get("node.k8s.io", "runtimeclasses", "", &name).await? else {
            return Err(forbidden(request, format!("pod rejected: RuntimeClass {name:?} not found")));
        };
        let fixed = class.at(&["overhead", "podFixed"]).filter(|v| v.as_object().is_some_and(|m| !m.is_empty()));
        if overhead.is_some() && overhead.as_ref() != fixed {
            let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
            return Err(forbidden(request, why));
        }
        let selector = class.at(&["scheduling", "nodeSelector"]).and_then(Value::as_object);
        for (key, value) in selector.into_iter().flatten() {
            let old = pod.at(&["spec", "nodeSelector", key]);
            if old.is_some_and(|old| old != value) {
                let (value, old) = (value.as_str().unwrap_or(""), old.and_then(Value::as_str).unwrap_or(""));
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {old}"
                );
                return Err(forbidden(request, why));
            }
        }
        let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
        if let Some(fixed) = fixed {
            pod.set_at(&["spec", "overhead"], fixed.clone());
        }
        for (key, value) in selector.into_iter().flatten() {
            pod.set_at(&["spec", "nodeSelector", key], value.clone());
        }
        let tolerations: Vec<Value> = items(&class, &["scheduling", "tolerations"]).cloned().collect();
        for toleration in tolerations {
            let list = array_mut(pod, &["spec", "tolerations"]);
            if !list.contains(&toleration) {
                list.push(toleration);
            }
        }
        Ok(())
    }
}
