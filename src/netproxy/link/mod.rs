//! Links, addresses, routes and neighbours by rtnetlink(7).
//!
//! | module | what it is |
//! |---|---|
//! | here | links and their addresses |
//! | `route` | the main table |
//! | `neighbour` | neighbours and forwarding entries that need no asking |
//! | `tunnel` | VXLAN and WireGuard devices |
//! | `wireguard` | what a WireGuard device is set to |
//! | `offload` | checksums by the device |
//! | `monitor` | what others change |

pub mod monitor;
pub mod neighbour;
mod offload;
pub mod route;
pub mod tunnel;
pub mod wireguard;

pub use offload::no_tx_checksum;
pub use route::Route;
pub use tunnel::Vxlan;

use super::net::{Family, address, octets};
use super::netlink::{Messages, Received, Socket, attr, errno, text, u32_at};
use nix::sys::socket::SockProtocol;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A hardware address.
pub type Mac = [u8; 6];

/// One end of a veth pair.
pub struct End<'a> {
    pub name: &'a str,
    pub mac: Mac,
}

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub mac: Vec<u8>,
    pub up: bool,
    /// "veth", "vxlan"; empty for a device of hardware.
    pub kind: String,
    /// What a VXLAN device was made with.
    pub vxlan: Option<Vxlan>,
}

/// Attribute types that `libc` lacks (linux/if_link.h, linux/veth.h).
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const REPLACE: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;

/// A connection to rtnetlink of one network namespace.
pub struct Links {
    socket: Socket,
}

impl Links {
    /// The network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        Ok(Links { socket: Socket::open(SockProtocol::NetlinkRoute)? })
    }

    /// Every link.
    pub fn list(&mut self) -> io::Result<Vec<Link>> {
        let mut links = Vec::new();
        let each = |m: Received<'_>| links.extend(link_of(m.body));
        self.socket.query(
            libc::RTM_GETLINK,
            libc::NLM_F_DUMP,
            |m| {
                m.raw(&ifinfo(0, 0));
            },
            each,
        )?;
        Ok(links)
    }

    /// The link of this name; None when there is none.
    pub fn by_name(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut found = None;
        let body = |m: &mut Messages| {
            m.raw(&ifinfo(0, 0)).text(libc::IFLA_IFNAME, name);
        };
        match self.socket.query(libc::RTM_GETLINK, 0, body, |m| found = link_of(m.body)) {
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// Create a veth pair whose second end is born inside `namespace`. The first end gets no IPv6 address of its own.
    pub fn add_veth(&mut self, here: &End<'_>, there: &End<'_>, namespace: BorrowedFd<'_>, mtu: u32) -> io::Result<()> {
        self.socket.request(libc::RTM_NEWLINK, CREATE, |m| {
            m.raw(&ifinfo(0, 0)).text(libc::IFLA_IFNAME, here.name).ne32(libc::IFLA_MTU, mtu);
            m.attr(libc::IFLA_ADDRESS, &here.mac);
            m.nest(libc::IFLA_LINKINFO, |m| {
                m.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |m| {
                    m.nest(VETH_INFO_PEER, |m| {
                        m.raw(&ifinfo(0, 0)).text(libc::IFLA_IFNAME, there.name).ne32(libc::IFLA_MTU, mtu);
                        m.attr(libc::IFLA_ADDRESS, &there.mac);
                        m.ne32(libc::IFLA_NET_NS_FD, namespace.as_raw_fd() as u32);
                    });
                });
            });
        })
    }

    /// No link-local IPv6 address when the link comes up. Fails without IPv6, which is fine.
    pub fn no_ipv6_address(&mut self, link: u32) -> io::Result<()> {
        self.socket.request(libc::RTM_NEWLINK, 0, |m| {
            m.raw(&ifinfo(link, 0)).nest(libc::IFLA_AF_SPEC, |m| {
                m.nest(libc::AF_INET6 as u16, |m| {
                    m.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
                });
            });
        })
    }

    pub fn up(&mut self, link: u32) -> io::Result<()> {
        self.socket.request(libc::RTM_NEWLINK, 0, |m| {
            m.raw(&ifinfo(link, libc::IFF_UP as u32));
        })
    }

    pub fn set_mtu(&mut self, link: u32, mtu: u32) -> io::Result<()> {
        self.socket.request(libc::RTM_NEWLINK, 0, |m| {
            m.raw(&ifinfo(link, 0)).ne32(libc::IFLA_MTU, mtu);
        })
    }

    /// Delete a link; the other end of a veth goes with it. True when it was there.
    pub fn delete(&mut self, name: &str) -> io::Result<bool> {
        let body = |m: &mut Messages| {
            m.raw(&ifinfo(0, 0)).text(libc::IFLA_IFNAME, name);
        };
        gone_is_fine(self.socket.request(libc::RTM_DELLINK, 0, body), &[libc::ENODEV])
    }

    /// Give a link a single address. `local_only`: never chosen as the source of traffic to elsewhere. `label` shows
    /// in `ip address` whose it is (IPv4 only).
    pub fn add_address(&mut self, link: u32, address: IpAddr, local_only: bool, label: Option<&str>) -> io::Result<()> {
        let scope = if local_only { libc::RT_SCOPE_LINK } else { libc::RT_SCOPE_UNIVERSE };
        let added = self.socket.request(libc::RTM_NEWADDR, REPLACE, |m| {
            m.raw(&ifaddr(address, scope, link))
                .attr(libc::IFA_LOCAL, &octets(address))
                .attr(libc::IFA_ADDRESS, &octets(address));
            if let (Some(label), IpAddr::V4(_)) = (label, address) {
                m.text(libc::IFA_LABEL, label);
            }
        });
        gone_is_fine(added, &[libc::EEXIST]).map(drop)
    }

    /// True when the address was there.
    pub fn delete_address(&mut self, link: u32, address: IpAddr) -> io::Result<bool> {
        let deleted = self.socket.request(libc::RTM_DELADDR, 0, |m| {
            m.raw(&ifaddr(address, libc::RT_SCOPE_LINK, link)).attr(libc::IFA_LOCAL, &octets(address));
        });
        gone_is_fine(deleted, &[libc::EADDRNOTAVAIL, libc::ENODEV])
    }

    /// Every address and the link that has it.
    pub fn addresses(&mut self) -> io::Result<Vec<(IpAddr, u32)>> {
        let mut found = Vec::new();
        self.socket.query(
            libc::RTM_GETADDR,
            libc::NLM_F_DUMP,
            |m| {
                m.raw(&[0; 8]);
            },
            |m| {
                let attrs = m.body.get(8..).unwrap_or_default();
                // IPv6 has no local attribute; on IPv4 the other one is the peer's.
                let value = attr(attrs, libc::IFA_LOCAL).or_else(|| attr(attrs, libc::IFA_ADDRESS));
                found.extend(value.and_then(address).zip(u32_at(m.body, 4)));
            },
        )?;
        Ok(found)
    }
}

/// True for done, false for an error that says it was already so.
fn gone_is_fine(result: io::Result<()>, fine: &[i32]) -> io::Result<bool> {
    match result {
        Err(error) if errno(&error).is_some_and(|number| fine.contains(&number)) => Ok(false),
        other => other.map(|()| true),
    }
}

fn link_of(body: &[u8]) -> Option<Link> {
    let attrs = body.get(16..)?;
    let info = |kind| attr(attrs, libc::IFLA_LINKINFO).and_then(|info| attr(info, kind));
    Some(Link {
        index: u32_at(body, 4)?,
        name: text(attr(attrs, libc::IFLA_IFNAME)?),
        mtu: attr(attrs, libc::IFLA_MTU).and_then(|v| u32_at(v, 0)).unwrap_or(0),
        mac: attr(attrs, libc::IFLA_ADDRESS).unwrap_or_default().to_vec(),
        up: u32_at(body, 8)? & libc::IFF_UP as u32 != 0,
        kind: info(libc::IFLA_INFO_KIND).map(text).unwrap_or_default(),
        vxlan: info(libc::IFLA_INFO_DATA).and_then(tunnel::vxlan_of),
    })
}

fn ifinfo(index: u32, up: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&up.to_ne_bytes());
    header[12..16].copy_from_slice(&up.to_ne_bytes());
    header
}

fn ifaddr(address: IpAddr, scope: u8, link: u32) -> [u8; 8] {
    let family = Family::of(address);
    let mut header = [family.number(), family.bits(), 0, scope, 0, 0, 0, 0];
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header
}
