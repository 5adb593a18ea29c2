//! TaintNodesByCondition: a new node gets no pods before it is ready.

use super::{Operation, Plugin, Reader, Request, array_mut, items};
use crate::object::ObjectExt;
use crate::status::Result;
use async_trait::async_trait;
use serde_json::json;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn admit(&self, request: &mut Request<'_>, _reader: &dyn Reader) -> Result<()> {
        if request.operation != Operation::Create || !request.is_main("", "nodes") {
            return Ok(());
        }
        let Some(node) = request.object.as_deref_mut() else { return Ok(()) };
        let is_it = |t: &serde_json::Value| t.str_at(&["key"]) == NOT_READY && t.str_at(&["effect"]) == "NoSchedule";
        if !items(node, &["spec", "taints"]).any(is_it) {
            array_mut(node, &["spec", "taints"]).push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}
