//! Lease (`coordination.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::view::check;
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

    fn validate(&self, lease: &Object, errors: &mut Errors) {
        check(lease, errors, |lease| {
            let spec = lease.get("spec");
            let (holder, duration) = (spec.get("holderIdentity"), spec.get("leaseDurationSeconds"));
            if holder.is_set() && holder.is_empty() {
                holder.invalid("must not be empty");
            }
            if duration.int().is_some_and(|seconds| seconds <= 0) {
                duration.invalid("must be greater than 0");
            }
            spec.get("leaseTransitions").non_negative();
            let (strategy, preferred) = (spec.get("strategy"), spec.get("preferredHolder"));
            strategy.one_of_if_set(&["OldestEmulationVersion"]);
            if !preferred.is_empty() && strategy.is_empty() {
                preferred.forbidden("may only be specified when `strategy` is defined");
            }
        });
    }

    fn row(&self, lease: &Object, now: i64) -> Vec<Value> {
        vec![lease.name().into(), string(lease, &["spec", "holderIdentity"]), age(lease, now)]
    }
}
