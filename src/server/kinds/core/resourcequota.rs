//! ResourceQuota (`v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &[STATUS],
    storage: "resourcequotas",
    columns: &[Column::NAME, text("Request"), text("Limit"), Column::AGE],
    strategy: &ResourceQuota,
    ..Kind::BASE
};

struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn row(&self, quota: &Object, now: i64) -> Vec<Value> {
        let hard = quota.at(&["status", "hard"]).and_then(Value::as_object);
        let show = |limits: bool| {
            let names = hard.into_iter().flatten().filter(|(name, _)| name.starts_with("limits") == limits);
            let cell = |(name, hard): (&String, &Value)| {
                let used = quantity(quota.at(&["status", "used", name]));
                format!("{name}: {used}/{}", quantity(Some(hard)))
            };
            names.map(cell).collect::<Vec<_>>().join(", ")
        };
        vec![quota.name().into(), show(false).into(), show(true).into(), age(quota, now)]
    }
}
