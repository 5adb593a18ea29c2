//! PodDisruptionBudget (`policy/v1`).

use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[STATUS],
    storage: "poddisruptionbudgets",
    ..Kind::BASE
};
