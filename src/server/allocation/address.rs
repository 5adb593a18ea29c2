//! Cluster addresses: which are usable, which is free (KEP-1880, KEP-3070).

use super::{Extra, Network};
use crate::object::{Object, ObjectExt};
use crate::server::raw;
use crate::status::{Result, Status};
use crate::store::{Compare, KeyRange, Op, RangeRequest, Store};
use crate::time;
use bytes::Bytes;
use rand::RngExt;
use serde_json::json;
use std::collections::HashSet;
use std::net::Ipv4Addr;

/// Random tries before the whole range is looked at.
const RANDOM_TRIES: usize = 16;

impl Network {
    /// Offsets of usable addresses: all but the network's own and the broadcast address.
    fn offsets(&self) -> std::ops::Range<u32> {
        let size = 1u32.checked_shl(32 - u32::from(self.service_cidr.1)).unwrap_or(u32::MAX);
        1..size.saturating_sub(1).max(1)
    }

    /// Offsets below this are left to those who ask for a certain address (KEP-3070): between 16 and 256 addresses.
    fn static_band(&self) -> u32 {
        let size = self.offsets().len() as u32;
        if size <= 16 { 0 } else { (size / 16).clamp(16, 256) }
    }

    fn address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.0) + offset)
    }

    /// Whether a Service may have this address.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).checked_sub(u32::from(self.service_cidr.0));
        offset.is_some_and(|o| self.offsets().contains(&o))
    }

    /// Where addresses come from, as messages show it.
    pub fn cidr(&self) -> String {
        format!("{}/{}", self.service_cidr.0, self.service_cidr.1)
    }

    /// A free address: at random above the static band, else any.
    pub(super) async fn free_address(&self, store: &dyn Store) -> Result<Ipv4Addr> {
        let all = self.offsets();
        let dynamic = (all.start + self.static_band()).min(all.end)..all.end;
        for _ in 0..RANDOM_TRIES {
            if dynamic.is_empty() {
                break;
            }
            let candidate = self.address(rand::rng().random_range(dynamic.clone()));
            if !exists(store, key(candidate)).await? {
                return Ok(candidate);
            }
        }
        let taken = taken(store).await?;
        let free = |o: &u32| !taken.contains(self.address(*o).to_string().as_str());
        let found = dynamic.clone().find(free).or_else(|| (all.start..dynamic.start).find(free));
        found.map(|o| self.address(o)).ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))
    }
}

/// All addresses that are taken, as text.
async fn taken(store: &dyn Store) -> Result<HashSet<String>> {
    let request = RangeRequest { keys_only: true, ..RangeRequest::of(KeyRange::prefix("/registry/ipaddresses/")) };
    let found = store.range(request).await.map_err(crate::server::registry::store_error)?;
    let name = |key: &Bytes| String::from_utf8_lossy(key).rsplit('/').next().unwrap_or("").to_owned();
    Ok(found.kvs.iter().map(|kv| name(&kv.key)).collect())
}

pub(super) fn key(address: Ipv4Addr) -> Bytes {
    format!("/registry/ipaddresses/{address}").into()
}

pub(super) async fn exists(store: &dyn Store, key: Bytes) -> Result<bool> {
    let request = RangeRequest { keys_only: true, ..RangeRequest::of(KeyRange::key(key)) };
    let found = store.range(request).await.map_err(crate::server::registry::store_error)?;
    Ok(!found.kvs.is_empty())
}

/// The steps that take an address for a Service: its IPAddress object appears.
pub(super) fn take(extra: &mut Extra, address: Ipv4Addr, service: &Object) -> Result<()> {
    let mut object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": time::rfc3339(time::now()),
            "generation": 1,
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {
            "group": "", "resource": "services", "namespace": service.namespace(), "name": service.name(),
        }},
    });
    let key = key(address);
    extra.compare.push(Compare::missing(key.clone()));
    extra.ops.push(Op::put(key, raw::store_form(&mut object)?));
    Ok(())
}

/// The step that gives an address back.
pub(super) fn release(extra: &mut Extra, address: Ipv4Addr) {
    extra.ops.push(Op::Delete(KeyRange::key(key(address))));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        // prefix length, usable addresses, static band
        for (prefix, usable, band) in [(24, 254, 16), (16, 65_534, 256), (30, 2, 0), (20, 4094, 255)] {
            let network = Network { service_cidr: (Ipv4Addr::new(10, 43, 0, 0), prefix), node_ports: (1, 2) };
            assert_eq!((network.offsets().len(), network.static_band()), (usable, band), "/{prefix}");
            assert!(!network.contains(Ipv4Addr::new(10, 43, 0, 0)));
            assert!(network.contains(Ipv4Addr::new(10, 43, 0, 1)));
            assert!(!network.contains(Ipv4Addr::new(10, 42, 255, 255)));
        }
    }
}
