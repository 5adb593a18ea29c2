//! Server-side apply and managed fields (KEP-555; structured-merge-diff's rules).

use super::{Manager, Typed};
use crate::object::Object;
use crate::status::Result;

/// Apply `config` by `manager` on `live` (None: create). `force` takes ownership on conflict, else 409 with one
/// FieldManagerConflict cause a field. The result carries the new `metadata.managedFields`.
pub fn apply(
    _live: Option<&Object>,
    _config: &Object,
    _manager: Manager<'_>,
    _force: bool,
    _typed: Typed<'_>,
) -> Result<Object> {
    todo!()
}

/// Record who owns what after a create, update or non-apply patch: sets `new.metadata.managedFields` from `old`'s,
/// the difference, and the manager. `old` None: create. Removes nothing else from `new`.
pub fn update(_old: Option<&Object>, _new: &mut Object, _manager: Manager<'_>, _typed: Typed<'_>) {
    todo!()
}
