//! ServiceCIDR (`networking.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::tree::*;
use crate::server::kinds::view::{View, check, check_change};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    scope: Scope::Cluster,
    subresources: &[STATUS],
    storage: "servicecidrs",
    columns: &[Column::NAME, text("CIDRs"), Column::AGE],
    strategy: &ServiceCidr,
    ..Kind::BASE
};

struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, cidr: &Object, errors: &mut Errors) {
        check(cidr, errors, |cidr| {
            let cidrs = cidr.at(&["spec", "cidrs"]);
            if cidrs.is_empty() {
                return cidrs.required("at least one CIDR required");
            }
            if cidrs.len() > 2 {
                return cidrs.invalid("may only hold up to 2 values");
            }
            cidrs.items().for_each(|one| _ = rules::cidr(&one));
            let family = |cidr: &View<'_>| rules::parse_cidr(cidr.str()).map(|(ip, _)| ip.is_ipv4());
            rules::one_per_family(&cidrs, family, "IP");
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            new.at(&["spec", "cidrs"]).immutable(&old.at(&["spec", "cidrs"]));
        });
    }

    fn row(&self, cidr: &Object, now: i64) -> Vec<Value> {
        let cidrs = cidr.get("spec").map(|s| list(s, "cidrs")).unwrap_or_default();
        let cidrs: Vec<&str> = cidrs.iter().filter_map(Value::as_str).collect();
        vec![cidr.name().into(), cidrs.join(",").into(), age(cidr, now)]
    }
}
