//! Devices that carry packets between nodes (linux/if_link.h).

use super::{CREATE, Links, Mac, ifinfo};
use crate::netproxy::net::{address, octets};
use crate::netproxy::netlink::{attr, u32_at};
use std::io;
use std::net::IpAddr;

const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_LOCAL6: u16 = 17;

/// What a VXLAN device is made with (RFC 7348).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    pub id: u32,
    /// This node's address.
    pub local: IpAddr,
    /// UDP port, here and there.
    pub port: u16,
}

impl Links {
    /// Create a VXLAN device that learns nothing by itself.
    pub fn add_vxlan(&mut self, name: &str, mac: Mac, mtu: u32, vxlan: &Vxlan) -> io::Result<()> {
        self.socket.request(libc::RTM_NEWLINK, CREATE, |m| {
            m.raw(&ifinfo(0, 0)).text(libc::IFLA_IFNAME, name).ne32(libc::IFLA_MTU, mtu);
            m.attr(libc::IFLA_ADDRESS, &mac).nest(libc::IFLA_LINKINFO, |m| {
                m.text(libc::IFLA_INFO_KIND, "vxlan").nest(libc::IFLA_INFO_DATA, |m| {
                    let local = if vxlan.local.is_ipv4() { IFLA_VXLAN_LOCAL } else { IFLA_VXLAN_LOCAL6 };
                    m.ne32(IFLA_VXLAN_ID, vxlan.id).attr(local, &octets(vxlan.local));
                    m.attr(IFLA_VXLAN_PORT, &vxlan.port.to_be_bytes()).attr(IFLA_VXLAN_LEARNING, &[0]);
                });
            });
        })
    }

    /// Create a WireGuard device. `EOPNOTSUPP` when the kernel has no WireGuard.
    pub fn add_wireguard(&mut self, name: &str, mtu: u32) -> io::Result<()> {
        self.socket.request(libc::RTM_NEWLINK, CREATE, |m| {
            m.raw(&ifinfo(0, 0)).text(libc::IFLA_IFNAME, name).ne32(libc::IFLA_MTU, mtu);
            m.nest(libc::IFLA_LINKINFO, |m| {
                m.text(libc::IFLA_INFO_KIND, "wireguard");
            });
        })
    }
}

/// From the `IFLA_INFO_DATA` of a link; None for other kinds of links, and for a device that learns.
pub(super) fn vxlan_of(data: &[u8]) -> Option<Vxlan> {
    let local = attr(data, IFLA_VXLAN_LOCAL).or_else(|| attr(data, IFLA_VXLAN_LOCAL6))?;
    let port: [u8; 2] = attr(data, IFLA_VXLAN_PORT)?.try_into().ok()?;
    let learns = attr(data, IFLA_VXLAN_LEARNING)? != [0];
    let id = u32_at(attr(data, IFLA_VXLAN_ID)?, 0)?;
    Some(Vxlan { id, local: address(local)?, port: u16::from_be_bytes(port) }).filter(|_| !learns)
}
