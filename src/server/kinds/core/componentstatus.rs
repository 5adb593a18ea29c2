//! ComponentStatus (`v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::text;
use crate::server::kinds::tree::list;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    scope: Scope::Cluster,
    short_names: &["cs"],
    verbs: Verbs::ReadOnly,
    columns: &[Column::NAME, text("Status"), text("Message"), text("Error")],
    strategy: &ComponentStatus,
    ..Kind::BASE
};

struct ComponentStatus;

impl Strategy for ComponentStatus {
    fn row(&self, status: &Object, _now: i64) -> Vec<Value> {
        let healthy = list(status, "conditions").iter().find(|c| c.str_at(&["type"]) == "Healthy");
        let field = |name: &str| healthy.map_or("", |c| c.str_at(&[name]));
        let word = match (healthy, field("status")) {
            (None, _) => "Unknown",
            (_, "True") => "Healthy",
            _ => "Unhealthy",
        };
        vec![status.name().into(), word.into(), field("message").into(), field("error").into()]
    }
}
