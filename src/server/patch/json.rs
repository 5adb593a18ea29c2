//! JSON patch (RFC 6902).

use crate::object::Object;
use crate::status::Result;

/// Apply a JSON patch document to an object. A failed `test` or a bad path is 422, a malformed document 400.
pub fn patch(_current: &Object, _document: &[u8]) -> Result<Object> {
    todo!()
}
