//! Flags to checked values, before the first port opens. Errors name the flag and what to write instead.

mod agent;
mod cidr;
mod cluster;
pub mod component;
mod node;
mod server;

pub use agent::{Agent, ServerUrl, given_token};
pub use cidr::Cidr;
pub use cluster::Cluster;
pub use node::{Node, UNPLUGGED, default_address};
pub use server::{Datastore, Server};

pub const CONFIG_FILE: &str = "/etc/kedge/config.yaml";
pub const DATA_DIR: &str = "/var/lib/kedge";
pub const RUN_DIR: &str = "/run/kedge";
pub const KUBECONFIG: &str = "/etc/kedge/kubeconfig.yaml";
