//! Discovery: what the server serves. Legacy forms and aggregated v2 (KEP-3352), all derived from the kinds table.

use crate::server::document::{Asked, Document};
use crate::status::Result;

/// Answer `/api`, `/apis` and what is below them without naming a resource; None for any other path.
pub fn serve(_asked: Asked<'_>) -> Option<Result<Document>> {
    todo!()
}
