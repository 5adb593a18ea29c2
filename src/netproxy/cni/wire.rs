//! The CNI protocol's data (CNI spec 1.0.0; results also in the shapes of 0.3.x and 0.4.0) and the two messages between
//! plugin and agent.

use crate::netproxy::link::Mac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::net::IpAddr;

/// Versions we answer, newest last.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The version our configuration asks for; containerd 1.6 knows it.
pub const CONFIG_VERSION: &str = "1.0.0";
/// The longest configuration or request read; longer ones are refused.
pub const MAX_MESSAGE_BYTES: u64 = 256 * 1024;

/// What the plugin asks the agent: its environment and configuration, unread.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Request {
    pub command: String,
    pub container_id: String,
    pub netns: String,
    pub ifname: String,
    pub args: String,
    pub config: Value,
}

/// What the agent answers: `result` goes to standard output as it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Done(Value),
    Failed(Failure),
}

/// A CNI error (spec 1.0.0 section 5, "Error"). Codes from 100 are a plugin's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}")]
pub struct Failure {
    pub code: u32,
    pub msg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

/// Error codes of the specification.
pub const INCOMPATIBLE_VERSION: u32 = 1;
pub const UNKNOWN_CONTAINER: u32 = 3;
pub const INVALID_ENVIRONMENT: u32 = 4;
pub const IO_FAILURE: u32 = 5;
pub const DECODE_FAILURE: u32 = 6;
pub const INVALID_CONFIG: u32 = 7;
pub const TRY_AGAIN_LATER: u32 = 11;
pub const NOT_AVAILABLE: u32 = 50;
/// Ours.
pub const NO_ADDRESS: u32 = 100;
pub const NETWORK_FAILURE: u32 = 101;

impl Failure {
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Failure { code, msg: msg.into(), details: String::new() }
    }

    /// As the runtime reads it.
    pub fn to_json(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "code": self.code, "msg": self.msg, "details": self.details })
    }
}

/// The part of a network configuration that we read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetConf {
    pub cni_version: String,
    /// The agent's socket.
    pub socket: String,
    pub runtime_config: RuntimeConfig,
    /// Of a GC request: what still exists.
    #[serde(rename = "cni.dev/valid-attachments")]
    pub valid_attachments: Vec<Attachment>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeConfig {
    pub port_mappings: Vec<PortMapping>,
}

/// containerd 1.6 writes the names in capitals: Go's decoders, which everybody else uses, do not mind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortMapping {
    #[serde(alias = "HostPort")]
    pub host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    #[serde(alias = "Protocol")]
    pub protocol: String,
    #[serde(rename = "hostIP", alias = "HostIP")]
    pub host_ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

/// What ADD made.
#[derive(Clone, Debug)]
pub struct Made<'a> {
    pub host_interface: &'a str,
    pub host_mac: Mac,
    pub interface: &'a str,
    pub mac: Mac,
    pub netns: &'a str,
    pub addresses: &'a [IpAddr],
}

/// The result of ADD in the shape of `version`.
pub fn result(version: &str, made: &Made<'_>, gateway: impl Fn(IpAddr) -> IpAddr) -> Value {
    let old = version.starts_with("0.");
    let ip = |address: &IpAddr| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let mut ip = json!({ "address": format!("{address}/{bits}"), "gateway": gateway(*address), "interface": 1 });
        if old {
            ip["version"] = json!(if address.is_ipv4() { "4" } else { "6" });
        }
        ip
    };
    let route = |address: &IpAddr| json!({ "dst": if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": gateway(*address) });
    json!({
        "cniVersion": version,
        "interfaces": [
            { "name": made.host_interface, "mac": mac_text(made.host_mac) },
            { "name": made.interface, "mac": mac_text(made.mac), "sandbox": made.netns },
        ],
        "ips": made.addresses.iter().map(ip).collect::<Vec<_>>(),
        "routes": made.addresses.iter().map(route).collect::<Vec<_>>(),
        "dns": {},
    })
}

pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_take_the_shape_of_the_version() {
        let addresses = ["10.42.0.5".parse().unwrap()];
        let made = Made {
            host_interface: "kdg1",
            host_mac: [2; 6],
            interface: "eth0",
            mac: [10; 6],
            netns: "/n",
            addresses: &addresses,
        };
        let gateway = |_| "169.254.1.1".parse().unwrap();
        let new = result("1.0.0", &made, gateway);
        assert_eq!(new["ips"][0], json!({ "address": "10.42.0.5/32", "gateway": "169.254.1.1", "interface": 1 }));
        assert_eq!(new["interfaces"][1]["mac"], "0a:0a:0a:0a:0a:0a");
        assert_eq!(result("0.4.0", &made, gateway)["ips"][0]["version"], "4");
    }

    #[test]
    fn configurations() {
        let text = r#"{"cniVersion":"1.0.0","name":"kedge","type":"kedge-cni","socket":"/s",
            "runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":""}]},
            "cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]}"#;
        let conf: NetConf = serde_json::from_str(text).unwrap();
        assert_eq!(conf.runtime_config.port_mappings[0].host_port, 8080);
        assert_eq!(conf.valid_attachments[0].container_id, "a");
        let capitals = text.replace("hostPort", "HostPort").replace("containerPort", "ContainerPort");
        let conf: NetConf = serde_json::from_str(&capitals.replace("protocol", "Protocol")).unwrap();
        assert_eq!(conf.runtime_config.port_mappings[0].container_port, 80);
        assert_eq!(serde_json::from_str::<NetConf>("{}").unwrap().socket, "");
    }
}
