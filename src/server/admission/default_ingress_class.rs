//! DefaultIngressClass: an Ingress that names no class gets the newest default one.

use super::{Operation, Plugin, Reader, Request, newest_default};
use crate::object::ObjectExt;
use crate::status::Result;
use async_trait::async_trait;

const DEFAULT: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

pub struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    async fn admit(&self, request: &mut Request<'_>, reader: &dyn Reader) -> Result<()> {
        if request.operation != Operation::Create || !request.is_main("networking.k8s.io", "ingresses") {
            return Ok(());
        }
        let Some(ingress) = request.object.as_deref_mut() else { return Ok(()) };
        let named = ingress.at(&["spec", "ingressClassName"]).is_some_and(|v| !v.is_null());
        if named || ingress.annotations().is_some_and(|a| a.contains_key(CLASS_ANNOTATION)) {
            return Ok(());
        }
        let classes = reader.list("networking.k8s.io", "ingressclasses", "").await?;
        if let Some(name) = newest_default(&classes, DEFAULT) {
            ingress.set_at(&["spec", "ingressClassName"], name.into());
        }
        Ok(())
    }
}
