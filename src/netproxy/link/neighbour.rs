//! Neighbours (address → hardware address) and a VXLAN device's forwarding entries (hardware address → node), both
//! permanent: they need no asking and never age. linux/neighbour.h.

use super::{Links, Mac, REPLACE, gone_is_fine};
use crate::netproxy::net::{Family, address, octets};
use crate::netproxy::netlink::{Messages, Received, attr, u32_at};
use std::io;
use std::net::IpAddr;

const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
/// The entry is the device's own, not that of a bridge above it.
const NTF_SELF: u8 = 0x02;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

impl Links {
    /// A neighbour, in place of what is known of this address.
    pub fn add_neighbour(&mut self, link: u32, neighbour: IpAddr, mac: Mac) -> io::Result<()> {
        self.socket.request(libc::RTM_NEWNEIGH, REPLACE, |m| write_neighbour(m, link, neighbour, mac))
    }

    pub fn delete_neighbour(&mut self, link: u32, neighbour: IpAddr) -> io::Result<bool> {
        let deleted = self.socket.request(libc::RTM_DELNEIGH, 0, |m| write_neighbour(m, link, neighbour, [0; 6]));
        gone_is_fine(deleted, &[libc::ENOENT, libc::ENODEV])
    }

    /// A link's permanent neighbours.
    pub fn neighbours(&mut self, link: u32) -> io::Result<Vec<(IpAddr, Mac)>> {
        let all = self.entries(libc::AF_UNSPEC as u8, link)?;
        Ok(all
            .into_iter()
            .filter(|e| e.state & NUD_PERMANENT != 0)
            .filter_map(|e| Some((e.address?, e.mac?)))
            .collect())
    }

    /// Frames to `mac` go to the node at `to`.
    pub fn add_forwarding(&mut self, link: u32, mac: Mac, to: IpAddr) -> io::Result<()> {
        self.socket.request(libc::RTM_NEWNEIGH, REPLACE, |m| write_forwarding(m, link, mac, to))
    }

    pub fn delete_forwarding(&mut self, link: u32, mac: Mac, to: IpAddr) -> io::Result<bool> {
        let deleted = self.socket.request(libc::RTM_DELNEIGH, 0, |m| write_forwarding(m, link, mac, to));
        gone_is_fine(deleted, &[libc::ENOENT, libc::ENODEV])
    }

    /// A VXLAN device's forwarding entries.
    pub fn forwarding(&mut self, link: u32) -> io::Result<Vec<(Mac, IpAddr)>> {
        let all = self.entries(libc::AF_BRIDGE as u8, link)?;
        Ok(all.into_iter().filter_map(|e| Some((e.mac?, e.address?))).collect())
    }

    fn entries(&mut self, family: u8, link: u32) -> io::Result<Vec<Entry>> {
        let mut found = Vec::new();
        let forwarding = i32::from(family) == libc::AF_BRIDGE;
        let body = |m: &mut Messages| {
            m.raw(&header(family, link, 0, 0));
        };
        let each =
            |m: Received<'_>| found.extend(entry(m.body).filter(|e| e.link == link && e.forwarding == forwarding));
        self.socket.query(libc::RTM_GETNEIGH, libc::NLM_F_DUMP, body, each)?;
        Ok(found)
    }
}

struct Entry {
    /// Of a VXLAN device's table, not a neighbour.
    forwarding: bool,
    link: u32,
    state: u16,
    address: Option<IpAddr>,
    mac: Option<Mac>,
}

fn entry(body: &[u8]) -> Option<Entry> {
    let attrs = body.get(12..)?;
    Some(Entry {
        forwarding: i32::from(body[0]) == libc::AF_BRIDGE,
        link: u32_at(body, 4)?,
        state: u16::from_ne_bytes(body[8..10].try_into().ok()?),
        address: attr(attrs, NDA_DST).and_then(address),
        mac: attr(attrs, NDA_LLADDR).and_then(|v| v.try_into().ok()),
    })
}

/// `struct ndmsg`
fn header(family: u8, link: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut header = [0; 12];
    header[0] = family;
    header[4..8].copy_from_slice(&link.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    header[10] = flags;
    header
}

fn write_neighbour(m: &mut Messages, link: u32, neighbour: IpAddr, mac: Mac) {
    m.raw(&header(Family::of(neighbour).number(), link, NUD_PERMANENT, 0));
    m.attr(NDA_DST, &octets(neighbour)).attr(NDA_LLADDR, &mac);
}

fn write_forwarding(m: &mut Messages, link: u32, mac: Mac, to: IpAddr) {
    m.raw(&header(libc::AF_BRIDGE as u8, link, NUD_PERMANENT | NUD_NOARP, NTF_SELF));
    m.attr(NDA_LLADDR, &mac).attr(NDA_DST, &octets(to));
}
