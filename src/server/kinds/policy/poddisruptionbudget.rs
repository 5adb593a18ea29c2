//! PodDisruptionBudget (`policy/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::view::check;
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

    fn validate(&self, budget: &Object, errors: &mut Errors) {
        check(budget, errors, |budget| {
            let spec = budget.get("spec");
            let bounds = ["minAvailable", "maxUnavailable"].map(|f| spec.get(f));
            if bounds.iter().all(|bound| bound.is_set()) {
                spec.invalid("minAvailable and maxUnavailable cannot be both set");
            }
            for bound in &bounds {
                rules::int_or_percent(bound);
                rules::not_more_than_100_percent(bound);
            }
            spec.get("unhealthyPodEvictionPolicy").one_of_if_set(&["AlwaysAllow", "IfHealthyBudget"]);
            rules::label_selector(&spec.get("selector"));
        });
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut Errors) {
        check(new, errors, |new| {
            for count in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                new.at(&["status", count]).non_negative();
            }
        });
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
