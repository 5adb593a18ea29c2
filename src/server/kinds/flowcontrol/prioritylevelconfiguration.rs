//! PriorityLevelConfiguration (`flowcontrol.apiserver.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "flowcontrol.apiserver.k8s.io",
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "prioritylevelconfigurations",
    columns: &[
        Column::NAME,
        text("Type"),
        text("NominalConcurrencyShares"),
        text("Queues"),
        text("HandSize"),
        text("QueueLengthLimit"),
        Column::AGE,
    ],
    strategy: &PriorityLevelConfiguration,
    ..Kind::BASE
};

struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn default(&self, level: &mut Object) {
        let Some(spec) = child(level, "spec") else { return };
        if let Some(exempt) = child(spec, "exempt") {
            default_nil(exempt, "nominalConcurrencyShares", 0);
            default_nil(exempt, "lendablePercent", 0);
        }
        let Some(limited) = child(spec, "limited") else { return };
        default_nil(limited, "nominalConcurrencyShares", 30);
        default_nil(limited, "lendablePercent", 0);
        if let Some(queuing) = descend(limited, &["limitResponse", "queuing"]) {
            default_zero(queuing, "queues", 64);
            default_zero(queuing, "handSize", 8);
            default_zero(queuing, "queueLengthLimit", 50);
        }
    }

    fn row(&self, level: &Object, now: i64) -> Vec<Value> {
        let side = if level.str_at(&["spec", "type"]) == "Exempt" { "exempt" } else { "limited" };
        let show =
            |path: &[&str]| int_at(&level["spec"][side], path).map_or_else(|| NONE.into(), |n| n.to_string().into());
        let queuing = |field: &str| show(&["limitResponse", "queuing", field]);
        vec![
            level.name().into(),
            string(level, &["spec", "type"]),
            show(&["nominalConcurrencyShares"]),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            age(level, now),
        ]
    }
}
