//! Job (`batch/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    categories: &["all"],
    subresources: &[STATUS],
    storage: "jobs",
    selectable: &["status.successful"],
    ..Kind::BASE
};
