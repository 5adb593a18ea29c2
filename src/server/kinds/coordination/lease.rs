//! Lease (`coordination.k8s.io/v1`).

use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    storage: "leases",
    columns: &[Column::NAME, text("Holder"), Column::AGE],
    strategy: &Lease,
    ..Kind::BASE
};

struct Lease;

impl Strategy for Lease {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, lease: &Object, now: i64) -> Vec<Value> {
        vec![lease.name().into(), string(lease, &["spec", "holderIdentity"]), age(lease, now)]
    }
}
