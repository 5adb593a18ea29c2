//! What a Service gets from the cluster: addresses and node ports, in the same transaction that writes the Service.
//!
//! The store itself is the allocator's state: an address is taken if its IPAddress object exists
//! (`/registry/ipaddresses/<address>`), a port if its key does (`/registry/ranges/servicenodeports/<port>`). Each write
//! of a Service carries the conditions and steps for these keys, so nothing is given twice, nothing leaks, and a
//! restart has nothing to rebuild, however many servers share the store.

mod address;
mod port;
mod service;

use crate::object::Object;
use crate::server::registry::Call;
use crate::status::Result;
use crate::store::{Compare, Op, Txn};
use std::net::Ipv4Addr;

/// Where Services get addresses and ports from.
#[derive(Clone, Debug)]
pub struct Network {
    /// Network address and prefix length of the service CIDR.
    pub service_cidr: (Ipv4Addr, u8),
    /// First and last node port.
    pub node_ports: (u16, u16),
}

impl Default for Network {
    fn default() -> Self {
        Network { service_cidr: (Ipv4Addr::new(10, 43, 0, 0), 16), node_ports: (30_000, 32_767) }
    }
}

/// Conditions and steps that a write carries besides its own.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    pub compare: Vec<Compare>,
    pub ops: Vec<Op>,
}

impl Extra {
    pub fn add_to(self, txn: &mut Txn) {
        txn.compare.extend(self.compare);
        txn.success.extend(self.ops);
    }
}

/// Plan a write: choose what `new` asks for and has not got, give back what only `old` has. `old` None: create; `new`
/// None: delete.
pub async fn plan(call: &Call, old: Option<&Object>, new: Option<&mut Object>) -> Result<Extra> {
    let kind = call.kind();
    if (kind.group, kind.plural) != ("", "services") {
        return Ok(Extra::default());
    }
    service::plan(call, old, new).await
}
