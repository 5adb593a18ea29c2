//! The pod network's CNI side: the plugin (this executable under another name), the agent's answers, the addresses.

pub(in crate::netproxy) mod veth;
mod wire;
