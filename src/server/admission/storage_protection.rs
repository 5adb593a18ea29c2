//! StorageObjectInUseProtection: volumes and claims in use are not deleted under their users.

use super::{Operation, Plugin, Reader, Request, array_mut};
use crate::object::ObjectExt;
use crate::status::Result;
use async_trait::async_trait;

const FINALIZERS: &[(&str, &str)] =
    &[("persistentvolumeclaims", "kubernetes.io/pvc-protection"), ("persistentvolumes", "kubernetes.io/pv-protection")];

pub struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn admit(&self, request: &mut Request<'_>, _reader: &dyn Reader) -> Result<()> {
        let finalizer = FINALIZERS.iter().find(|(resource, _)| request.is_main("", resource)).map(|(_, f)| *f);
        let Some(finalizer) = finalizer.filter(|_| request.operation == Operation::Create) else { return Ok(()) };
        let Some(object) = request.object.as_deref_mut() else { return Ok(()) };
        if !object.finalizers().contains(&finalizer) {
            array_mut(object, &["metadata", "finalizers"]).push(finalizer.into());
        }
        Ok(())
    }
}
