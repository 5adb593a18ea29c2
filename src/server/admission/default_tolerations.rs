//! DefaultTolerationSeconds: pods outlive five minutes of an unready or unreachable node.

use super::{Operation, Plugin, Reader, Request, array_mut, items};
use crate::object::ObjectExt;
use crate::status::Result;
use async_trait::async_trait;
use serde_json::{Value, json};

const TAINTS: [&str; 2] = [super::taint_nodes::NOT_READY, "node.kubernetes.io/unreachable"];
const SECONDS: u32 = 300;

pub struct DefaultTolerationSeconds;

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
        for taint in TAINTS {
            let tolerates = |t: &Value| {
                let (key, effect) = (t.str_at(&["key"]), t.str_at(&["effect"]));
                (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
            };
            if !items(pod, &["spec", "tolerations"]).any(tolerates) {
                let toleration =
                    json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
                array_mut(pod, &["spec", "tolerations"]).push(toleration);
            }
        }
        Ok(())
    }
}
