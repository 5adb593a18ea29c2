//! What is the same for the whole cluster. The server has it from its flags; agents get it from the server as JSON and
//! keep it for starts while the server is away, so a field that is added later needs a serde default.

use super::Cidr;
use crate::netproxy::overlay::Backend;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Networks and names of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub cluster_cidr: Cidr,
    pub service_cidr: Cidr,
    pub cluster_dns: IpAddr,
    pub cluster_domain: String,
    /// First and last port for Services of type NodePort.
    pub node_ports: (u16, u16),
    /// How pods of different nodes reach each other.
    #[serde(default)]
    pub overlay: Backend,
}
