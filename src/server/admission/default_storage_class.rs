//! DefaultStorageClass: a claim that names no class gets the newest default one.

use super::{Operation, Plugin, Reader, Request, newest_default};
use crate::object::ObjectExt;
use crate::status::Result;
use async_trait::async_trait;

const DEFAULT: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub struct DefaultStorageClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    async fn admit(&self, request: &mut Request<'_>, reader: &dyn Reader) -> Result<()> {
        if request.operation != Operation::Create || !request.is_main("", "persistentvolumeclaims") {
            return Ok(());
        }
        let Some(claim) = request.object.as_deref_mut() else { return Ok(()) };
        let named = claim.at(&["spec", "storageClassName"]).is_some_and(|v| !v.is_null());
        if named || claim.annotations().is_some_and(|a| a.contains_key(BETA_CLASS)) {
            return Ok(());
        }
        let classes = reader.list("storage.k8s.io", "storageclasses", "").await?;
        if let Some(name) = newest_default(&classes, DEFAULT) {
            claim.set_at(&["spec", "storageClassName"], name.into());
        }
        Ok(())
    }
}
