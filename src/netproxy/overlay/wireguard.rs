//! WireGuard: every node is a peer of every other, and its pods' networks are what it may send and receive. A node makes
//! its key at its first start, keeps it, and publishes the public half on its Node object.

use super::peers::PUBLIC_KEY;
use super::{Device, Exit, Here, Kind, Path, Peer as Node, Problem, Wanted, reachable};
use crate::durable;
use crate::netproxy::link::Links;
use crate::netproxy::net::Cidr;
use crate::netproxy::netlink::errno;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path as FilePath;

/// The port that k3s and flannel use for it.
const PORT: u16 = 51820;
/// IP, UDP and WireGuard headers; of IPv6, so that it holds whichever way a node is reached.
pub const OVERHEAD: u32 = 80;
/// Below `<data-dir>/agent/network`.
const KEY_FILE: &str = "wireguard.key";

/// A Curve25519 key, private or public, in 32 bytes; as text in base64, as `wg` shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Key(pub [u8; 32]);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard key: 32 bytes in base64")]
pub struct BadKey;

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

/// Private keys are of this type too: not for logs.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl std::str::FromStr for Key {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok()).map(Key).ok_or(BadKey)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = BadKey;

    fn try_from(text: String) -> Result<Self, BadKey> {
        text.parse()
    }
}

/// Another node as WireGuard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub endpoint: SocketAddr,
    pub allowed: BTreeSet<Cidr>,
}

pub fn device(prefix: &str) -> String {
    format!("{prefix}-wg")
}

/// Everything through the device, which is there as soon as its key may be wanted by others: also on a lone node.
pub fn plan(here: &Here, nodes: &[Node]) -> Wanted {
    let name = device(&here.prefix);
    let mut wanted = Wanted::default();
    let mut peers = BTreeMap::new();
    for node in nodes {
        let Some(key) = node.key else {
            wanted.problems.insert(without_key(node));
            continue;
        };
        let allowed: BTreeSet<Cidr> = reachable(here, node).copied().collect();
        for to in &allowed {
            let source = here.overlay_address(to.family());
            wanted.routes.push(Path { to: *to, exit: Exit::Device(name.clone()), via: None, source });
        }
        peers.insert(key, Peer { endpoint: SocketAddr::new(node.address, PORT), allowed });
    }
    let mtu = super::Backend::WireGuard.pod_mtu(here.link_mtu, here.address);
    let kind = Kind::WireGuard { port: PORT, peers };
    wanted.devices.push(Device { name, mtu, addresses: here.overlay_addresses(), kind });
    wanted
}

fn without_key(node: &Node) -> Problem {
    Problem {
        node: node.name.clone(),
        reason: "NoWireGuardKey",
        message: format!(
            "--overlay=wireguard: node {} has no annotation {PUBLIC_KEY} yet, so its pods are not reached; is its kedge agent \
             running, with WireGuard in its kernel?",
            node.name
        ),
    }
}

/// This node's private key: kept in `dir`, made at the first call.
pub fn private_key(dir: &FilePath) -> io::Result<Key> {
    let file = dir.join(KEY_FILE);
    match std::fs::read_to_string(&file) {
        Ok(text) => return text.parse().map_err(|e| io::Error::other(format!("{}: {e}", file.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    let mut bytes: [u8; 32] = rand::random();
    // A Curve25519 scalar (RFC 7748 section 5); the kernel does the same to what it gets.
    bytes[0] &= 248;
    bytes[31] = bytes[31] & 127 | 64;
    let key = Key(bytes);
    durable::write(&file, format!("{key}\n").as_bytes(), durable::SECRET)?;
    Ok(key)
}

/// Has this kernel WireGuard? The device made for the answer is gone again afterwards.
pub fn probe(prefix: &str) -> anyhow::Result<()> {
    let name = format!("{prefix}-wgprobe");
    let mut links = Links::open()?;
    links.delete(&name)?;
    match links.add_wireguard(&name, 1420) {
        Ok(()) => links.delete(&name).map(drop).map_err(Into::into),
        Err(error) if errno(&error) == Some(libc::EOPNOTSUPP) => anyhow::bail!(
            "--overlay=wireguard: this kernel has no WireGuard; install its module (modprobe wireguard), or choose --overlay=vxlan"
        ),
        Err(error) => Err(anyhow::Error::new(error).context("--overlay=wireguard: make a device")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let key = private_key(dir.path()).unwrap();
        assert_eq!(private_key(dir.path()).unwrap(), key);
        assert!(key.0[0] & 7 == 0 && key.0[31] & 0xc0 == 0x40, "clamped");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        assert_eq!("AAAA".parse::<Key>(), Err(BadKey));
        std::fs::write(dir.path().join(KEY_FILE), "broken").unwrap();
        assert!(private_key(dir.path()).is_err(), "a damaged key is not silently replaced");
    }
}
