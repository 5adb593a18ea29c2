//! Strategic merge patch: Kubernetes' own, driven by patch strategies and merge keys.

use super::Typed;
use crate::object::Object;
use crate::status::Result;

/// Merge `patch` into `current` with all directives ($patch, $retainKeys, $setElementOrder, $deleteFromPrimitiveList).
pub fn patch(_current: &Object, _patch: &Object, _typed: Typed<'_>) -> Result<Object> {
    todo!()
}
