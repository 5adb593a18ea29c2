//! DefaultTolerationSeconds: pods outlive some minutes of an unready or unreachable node.

use super::{Operation, Plugin, Reader, Request, array_mut, items};
use crate::object::ObjectExt;
use crate::status::Result;
use async_trait::async_trait;
use serde_json::{Value, json};

/// Seconds that pods stay on a node that is not ready, and on one that is unreachable, when they say nothing themselves
/// (`--default-not-ready-toleration-seconds`, `--default-unreachable-toleration-seconds`).
pub struct DefaultTolerationSeconds {
    pub not_ready: u32,
    pub unreachable: u32,
}

impl DefaultTolerationSeconds {
    pub const DEFAULT: Self = DefaultTolerationSeconds { not_ready: 300, unreachable: 300 };
}

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, request: &mut Request<'_>, _reader: &dyn Reader) -> Result<()> {
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        if !is_write || !request.is_main("", "pods") {
            return Ok(());
        }
        let Some(pod) = request.object.as_deref_mut() else { return Ok(()) };
        let taints =
            [(super::taint_nodes::NOT_READY, self.not_ready), ("node.kubernetes.io/unreachable", self.unreachable)];
        for (taint, seconds) in taints {
            let tolerates = |t: &Value| {
                let (key, effect) = (t.str_at(&["key"]), t.str_at(&["effect"]));
                (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            };
            if !items(pod, &["spec", "tolerations"]).any(tolerates) {
                let toleration =
                    json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
                array_mut(pod, &["spec", "tolerations"]).push(toleration);
            }
        }
        Ok(())
    }
}
