//! OpenAPI v3: an index with hashes and one document a group-version, built when asked for from the schema and kinds
//! tables.

use crate::server::document::{Asked, Document};
use crate::status::Result;

/// Answer `/openapi/v3` and below, and `/openapi/v2`; None for any other path.
pub fn serve(_asked: Asked<'_>) -> Option<Result<Document>> {
    todo!()
}
