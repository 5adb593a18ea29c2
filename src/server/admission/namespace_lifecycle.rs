//! NamespaceLifecycle: nothing is made in a namespace that does not exist or is on its way out, and the namespaces that
//! everything needs stay.

use super::{Operation, Plugin, Reader, Request, forbidden};
use crate::object::ObjectExt;
use crate::status::{Result, Status};
use async_trait::async_trait;

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle;

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn admit(&self, request: &mut Request<'_>, reader: &dyn Reader) -> Result<()> {
        let is_namespace = request.is("", "namespaces");
        if is_namespace && request.operation == Operation::Delete && IMMORTAL.contains(&request.info.name.as_str()) {
            return Err(forbidden(request, "this namespace may not be deleted"));
        }
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        let is_review = request.is("authorization.k8s.io", "localsubjectaccessreviews");
        if is_namespace || request.info.namespace.is_empty() || !is_write || is_review {
            return Ok(());
        }
        let name = request.info.namespace.clone();
        let Some(namespace) = reader.get("", "namespaces", "", &name).await? else {
            return Err(Status::not_found("", "namespaces", &name));
        };
        let is_ending = namespace.is_deleting() || namespace.str_at(&["status", "phase"]) == "Terminating";
        if request.operation != Operation::Create || !is_ending {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {name} because it is being terminated");
        let cause = format!("namespace {name} is being terminated");
        Err(forbidden(request, why).with_cause("NamespaceTerminating", cause, "metadata.namespace"))
    }
}
