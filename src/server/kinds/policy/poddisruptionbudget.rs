//! PodDisruptionBudget (`policy/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[STATUS],
    storage: "poddisruptionbudgets",
    columns: &[
        Column::NAME,
        text("Min Available"),
        text("Max Unavailable"),
        integer("Allowed Disruptions"),
        Column::AGE,
    ],
    strategy: &PodDisruptionBudget,
    ..Kind::BASE
};

struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, budget: &Object, now: i64) -> Vec<Value> {
        let bound = |field: &str| match budget.at(&["spec", field]) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(n)) => n.to_string(),
            _ => "N/A".to_owned(),
        };
        vec![
            budget.name().into(),
            bound("minAvailable").into(),
            bound("maxUnavailable").into(),
            number(budget, &["status", "disruptionsAllowed"]).into(),
            age(budget, now),
        ]
    }
}
