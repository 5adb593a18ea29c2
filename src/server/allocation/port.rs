//! Node ports (KEP-3668 for the two bands).

use super::address::exists;
use super::{Extra, Network};
use crate::object::{Object, ObjectExt};
use crate::status::{Result, Status};
use crate::store::{Compare, KeyRange, Op, RangeRequest, Store};
use bytes::Bytes;
use rand::RngExt;
use std::collections::HashSet;

const PREFIX: &str = "/registry/ranges/servicenodeports/";
const RANDOM_TRIES: usize = 16;

impl Network {
    pub(super) fn is_node_port(&self, port: u16) -> bool {
        (self.node_ports.0..=self.node_ports.1).contains(&port)
    }

    /// Ports below this are left to those who ask for a certain one.
    fn first_dynamic_port(&self) -> u16 {
        let (first, last) = self.node_ports;
        let size = last.saturating_sub(first).saturating_add(1);
        if size < 16 { first } else { first + (size / 32).clamp(16, 128) }
    }

    /// A free port that is not among `chosen` either.
    pub(super) async fn free_port(&self, store: &dyn Store, chosen: &HashSet<u16>) -> Result<u16> {
        let dynamic = self.first_dynamic_port()..=self.node_ports.1;
        for _ in 0..RANDOM_TRIES {
            let candidate = rand::rng().random_range(dynamic.clone());
            if !chosen.contains(&candidate) && !exists(store, key(candidate)).await? {
                return Ok(candidate);
            }
        }
        let request = RangeRequest { keys_only: true, ..RangeRequest::of(KeyRange::prefix(PREFIX)) };
        let found = store.range(request).await.map_err(crate::server::registry::store_error)?;
        let taken: HashSet<Bytes> = found.kvs.into_iter().map(|kv| kv.key).collect();
        let free = |port: &u16| !chosen.contains(port) && !taken.contains(&key(*port));
        let below = self.node_ports.0..*dynamic.start();
        dynamic.chain(below).find(free).ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
    }
}

pub(super) fn key(port: u16) -> Bytes {
    format!("{PREFIX}{port}").into()
}

/// The steps that take a port for a Service; the value says who has it.
pub(super) fn take(extra: &mut Extra, port: u16, service: &Object) {
    let owner = format!("{{\"namespace\":\"{}\",\"name\":\"{}\"}}", service.namespace(), service.name());
    extra.compare.push(Compare::missing(key(port)));
    extra.ops.push(Op::put(key(port), owner));
}

pub(super) fn release(extra: &mut Extra, port: u16) {
    extra.ops.push(Op::Delete(KeyRange::key(key(port))));
}
