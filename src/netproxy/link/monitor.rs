//! Notifications of what changes: links, addresses, routes, neighbours.

use super::route::route_of;
use super::{Link, link_of};
use crate::netproxy::netlink::{Received, Socket, u32_at};
use nix::sys::socket::SockProtocol;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// linux/rtnetlink.h
const RTNLGRP_LINK: i32 = 1;
const RTNLGRP_NEIGH: i32 = 3;
const RTNLGRP_IPV4_IFADDR: i32 = 5;
const RTNLGRP_IPV4_ROUTE: i32 = 7;
const RTNLGRP_IPV6_IFADDR: i32 = 9;
const RTNLGRP_IPV6_ROUTE: i32 = 11;

/// Something changed.
#[derive(Debug)]
pub enum Seen {
    Link(Link),
    Address,
    Route(super::Route),
    /// A neighbour or forwarding entry of this link went away.
    Neighbour(u32),
}

pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// The network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkRoute)?;
        let groups = [
            RTNLGRP_LINK,
            RTNLGRP_NEIGH,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV6_ROUTE,
        ];
        for group in groups {
            socket.join(group)?;
        }
        socket.set_nonblocking()?;
        Ok(Monitor { socket })
    }

    /// What came since the last call. `ENOBUFS`: more than the queue holds, so anything may have changed.
    pub fn poll(&mut self, mut each: impl FnMut(Seen)) -> io::Result<()> {
        self.socket.poll(|m| seen(m).into_iter().for_each(&mut each))
    }
}

fn seen(m: Received<'_>) -> Option<Seen> {
    match m.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => link_of(m.body).map(Seen::Link),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Seen::Address),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => route_of(m.body).map(Seen::Route),
        libc::RTM_DELNEIGH => u32_at(m.body, 4).map(Seen::Neighbour),
        _ => None,
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
