//! IPAddress (`networking.k8s.io/v1`).

use crate::field::Errors;
use crate::object::{Object, ObjectExt};
use crate::server::kinds::cells::*;
use crate::server::kinds::view::{check, check_change};
use crate::server::kinds::*;

pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    scope: Scope::Cluster,
    short_names: &["ip"],
    storage: "ipaddresses",
    columns: &[Column::NAME, text("ParentRef")],
    strategy: &IpAddress,
    ..Kind::BASE
};

struct IpAddress;

impl Strategy for IpAddress {
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, address: &Object, errors: &mut Errors) {
        check(address, errors, |address| {
            let parent = address.at(&["spec", "parentRef"]);
            if !parent.is_set() {
                return parent.required("");
            }
            parent.get("resource").require();
            parent.get("name").require();
        });
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut Errors) {
        check_change(new, old, errors, |new, old| {
            new.at(&["spec", "parentRef"]).immutable(&old.at(&["spec", "parentRef"]));
        });
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        match name.parse::<std::net::IpAddr>() {
            Ok(ip) if ip.to_string() == name => Ok(()),
            Ok(_) => Err("must be a valid IP address in canonical form".to_owned()),
            Err(_) => Err("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()),
        }
    }

    fn row(&self, address: &Object, _now: i64) -> Vec<Value> {
        vec![address.name().into(), parent(address).into()]
    }
}

/// `services/default/kubernetes`
fn parent(address: &Object) -> String {
    let Some(parent) = address.at(&["spec", "parentRef"]).filter(|p| p.is_object()) else { return NONE.to_owned() };
    let (group, namespace) = (parent.str_at(&["group"]), parent.str_at(&["namespace"]));
    let dot = if group.is_empty() { "" } else { "." };
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("{}{dot}{group}/{namespace}{slash}{}", parent.str_at(&["resource"]), parent.str_at(&["name"]))
}
