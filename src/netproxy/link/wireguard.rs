//! WireGuard devices by generic netlink (linux/wireguard.h).

use crate::netproxy::genl::Family as Genl;
use crate::netproxy::net::{Cidr, Family, address, octets};
use crate::netproxy::netlink::{Messages, Received, attr, attrs};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

const NAME: &str = "wireguard";
const WG_CMD_GET_DEVICE: u8 = 0;
const WG_CMD_SET_DEVICE: u8 = 1;
const WGDEVICE_A_IFNAME: u16 = 2;
const WGDEVICE_A_PRIVATE_KEY: u16 = 3;
const WGDEVICE_A_PUBLIC_KEY: u16 = 4;
const WGDEVICE_A_LISTEN_PORT: u16 = 6;
const WGDEVICE_A_PEERS: u16 = 8;
const WGPEER_A_PUBLIC_KEY: u16 = 1;
const WGPEER_A_FLAGS: u16 = 3;
const WGPEER_A_ENDPOINT: u16 = 4;
const WGPEER_A_ALLOWEDIPS: u16 = 9;
const WGPEER_F_REMOVE_ME: u32 = 1;
const WGPEER_F_REPLACE_ALLOWEDIPS: u32 = 2;
const WGALLOWEDIP_A_FAMILY: u16 = 1;
const WGALLOWEDIP_A_IPADDR: u16 = 2;
const WGALLOWEDIP_A_CIDR_MASK: u16 = 3;

/// Peers told in one message: a nested list has 16 bits for its length.
const PEERS_PER_MESSAGE: usize = 256;

pub type Key = [u8; 32];

/// What a device is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub private: Key,
    /// The kernel's answer; not for setting.
    pub public: Key,
    pub port: u16,
    pub peers: BTreeMap<Key, Peer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// None: not known yet.
    pub endpoint: Option<SocketAddr>,
    pub allowed: BTreeSet<Cidr>,
}

pub struct WireGuard {
    genl: Genl,
}

impl WireGuard {
    /// `NotFound` when the kernel has no WireGuard (its module comes with the first device).
    pub fn open() -> io::Result<Self> {
        Ok(WireGuard { genl: Genl::open(NAME, 1)? })
    }

    pub fn get(&mut self, name: &str) -> io::Result<Device> {
        let mut device = Device::default();
        let body = |m: &mut Messages| {
            m.text(WGDEVICE_A_IFNAME, name);
        };
        self.genl.query(WG_CMD_GET_DEVICE, libc::NLM_F_DUMP, body, |m| read_device(m, &mut device))?;
        Ok(device)
    }

    pub fn set_key_and_port(&mut self, name: &str, private: &Key, port: u16) -> io::Result<()> {
        self.genl.request(WG_CMD_SET_DEVICE, |m| {
            m.text(WGDEVICE_A_IFNAME, name).attr(WGDEVICE_A_PRIVATE_KEY, private);
            m.attr(WGDEVICE_A_LISTEN_PORT, &port.to_ne_bytes());
        })
    }

    /// Put and remove peers (None); others keep their sessions.
    pub fn set_peers(&mut self, name: &str, changes: &[(Key, Option<&Peer>)]) -> io::Result<()> {
        for some in changes.chunks(PEERS_PER_MESSAGE) {
            self.genl.request(WG_CMD_SET_DEVICE, |m| {
                m.text(WGDEVICE_A_IFNAME, name).nest(WGDEVICE_A_PEERS, |m| {
                    for (key, peer) in some {
                        m.nest(0, |m| write_peer(m, key, *peer));
                    }
                });
            })?;
        }
        Ok(())
    }
}

fn write_peer(m: &mut Messages, key: &Key, peer: Option<&Peer>) {
    m.attr(WGPEER_A_PUBLIC_KEY, key);
    let Some(peer) = peer else {
        m.ne32(WGPEER_A_FLAGS, WGPEER_F_REMOVE_ME);
        return;
    };
    m.ne32(WGPEER_A_FLAGS, WGPEER_F_REPLACE_ALLOWEDIPS);
    if let Some(endpoint) = peer.endpoint {
        m.attr(WGPEER_A_ENDPOINT, &sockaddr(endpoint));
    }
    m.nest(WGPEER_A_ALLOWEDIPS, |m| {
        for cidr in &peer.allowed {
            m.nest(0, |m| {
                m.attr(WGALLOWEDIP_A_FAMILY, &u16::from(cidr.family().number()).to_ne_bytes());
                m.attr(WGALLOWEDIP_A_IPADDR, &octets(cidr.network)).attr(WGALLOWEDIP_A_CIDR_MASK, &[cidr.prefix]);
            });
        }
    });
}

/// One message of an answer; a device with many peers takes several, and one peer may be cut over two.
fn read_device(m: Received<'_>, device: &mut Device) {
    let attrs_of = m.body.get(4..).unwrap_or_default();
    let key = |kind| attr(attrs_of, kind).and_then(|v| Key::try_from(v).ok());
    device.private = key(WGDEVICE_A_PRIVATE_KEY).unwrap_or(device.private);
    device.public = key(WGDEVICE_A_PUBLIC_KEY).unwrap_or(device.public);
    let port = attr(attrs_of, WGDEVICE_A_LISTEN_PORT).and_then(|v| v.try_into().ok()).map(u16::from_ne_bytes);
    device.port = port.unwrap_or(device.port);
    for (_, peer) in attr(attrs_of, WGDEVICE_A_PEERS).into_iter().flat_map(attrs) {
        let Some(key) = attr(peer, WGPEER_A_PUBLIC_KEY).and_then(|v| Key::try_from(v).ok()) else { continue };
        let known = device.peers.entry(key).or_insert(Peer { endpoint: None, allowed: BTreeSet::new() });
        known.endpoint = attr(peer, WGPEER_A_ENDPOINT).and_then(endpoint).or(known.endpoint);
        known
            .allowed
            .extend(attr(peer, WGPEER_A_ALLOWEDIPS).into_iter().flat_map(attrs).filter_map(|(_, a)| allowed(a)));
    }
}

fn allowed(bytes: &[u8]) -> Option<Cidr> {
    let prefix = *attr(bytes, WGALLOWEDIP_A_CIDR_MASK)?.first()?;
    Some(Cidr::new(address(attr(bytes, WGALLOWEDIP_A_IPADDR)?)?, prefix))
}

/// `struct sockaddr_in` or `sockaddr_in6`.
fn sockaddr(endpoint: SocketAddr) -> Vec<u8> {
    let family = u16::from(Family::of(endpoint.ip()).number());
    let mut bytes = [family.to_ne_bytes(), endpoint.port().to_be_bytes()].concat();
    match endpoint.ip() {
        IpAddr::V4(a) => bytes.extend(a.octets().iter().chain(&[0; 8])),
        IpAddr::V6(a) => {
            bytes.extend([0; 4]);
            bytes.extend(a.octets());
            bytes.extend([0; 4]);
        }
    }
    bytes
}

fn endpoint(bytes: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let ip = match i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?)) {
        libc::AF_INET => address(bytes.get(4..8)?)?,
        _ => address(bytes.get(8..24)?)?,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netproxy::netlink::messages;

    /// The attributes of a set are those of a get, so what is written reads back.
    #[test]
    fn peers_read_back() {
        let cidrs = ["10.42.1.0/24", "fd00:1::/64"].map(|c| c.parse().unwrap());
        for text in ["192.0.2.2:51820", "[2001:db8::2]:51820"] {
            let peer = Peer { endpoint: Some(text.parse().unwrap()), allowed: cidrs.into() };
            let mut built = Messages::default();
            built.message(7, 0, 1, |m| {
                m.raw(&[0; 4]).attr(WGDEVICE_A_LISTEN_PORT, &51820u16.to_ne_bytes()).nest(WGDEVICE_A_PEERS, |m| {
                    m.nest(0, |m| write_peer(m, &[7; 32], Some(&peer)));
                });
            });
            let mut device = Device::default();
            read_device(messages(built.bytes()).next().unwrap(), &mut device);
            assert_eq!((device.port, device.peers), (51820, BTreeMap::from([([7; 32], peer)])));
        }
    }
}
