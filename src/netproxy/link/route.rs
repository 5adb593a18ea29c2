//! Routes of the main table.

use super::{Links, REPLACE, gone_is_fine};
use crate::netproxy::net::{Cidr, Family, address, octets};
use crate::netproxy::netlink::{Messages, Received, attr, errno, u32_at};
use std::io;
use std::net::IpAddr;

/// A route: `dst` None is the default route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub family: Family,
    pub dst: Option<Cidr>,
    pub via: Option<IpAddr>,
    /// None: what goes there is answered as unreachable.
    pub link: Option<u32>,
    pub source: Option<IpAddr>,
    /// The gateway is taken for reachable on the link, whatever other routes say.
    pub onlink: bool,
    /// Who made it (`RTPROT_*`, linux/rtnetlink.h).
    pub protocol: u8,
    /// Of several routes to one network the one with the lowest counts.
    pub metric: u32,
}

/// The metric that IPv6 routes get when none is given (linux/ipv6_route.h).
const IP6_RT_PRIO_USER: u32 = 1024;
/// linux/rtnetlink.h
const RTNH_F_ONLINK: u32 = 4;

impl Route {
    /// To a network on a link.
    pub fn to(dst: Cidr, link: u32) -> Self {
        Route { dst: Some(dst), ..Self::default_on(dst.family(), link) }
    }

    /// To everything.
    pub fn default_on(family: Family, link: u32) -> Self {
        let link = Some(link);
        Route {
            family,
            dst: None,
            via: None,
            link,
            source: None,
            onlink: false,
            protocol: libc::RTPROT_STATIC,
            metric: 0,
        }
    }

    /// To nowhere.
    pub fn unreachable(dst: Cidr) -> Self {
        Route { link: None, ..Self::to(dst, 0) }
    }
}

/// How the kernel would send to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub link: u32,
    /// None: the address is on the link itself.
    pub via: Option<IpAddr>,
}

impl Links {
    /// Add a route, in place of one to the same network.
    pub fn add_route(&mut self, route: &Route) -> io::Result<()> {
        self.socket.request(libc::RTM_NEWROUTE, REPLACE, |m| write_route(m, route))
    }

    /// True when the route was there.
    pub fn delete_route(&mut self, route: &Route) -> io::Result<bool> {
        let deleted = self.socket.request(libc::RTM_DELROUTE, 0, |m| write_route(m, route));
        gone_is_fine(deleted, &[libc::ESRCH, libc::ENODEV])
    }

    /// The main table's routes to networks.
    pub fn routes(&mut self, family: Family) -> io::Result<Vec<Route>> {
        let mut found = Vec::new();
        let mut header = [0; 12];
        header[0] = family.number();
        let body = |m: &mut Messages| {
            m.raw(&header);
        };
        let each = |m: Received<'_>| found.extend(route_of(m.body));
        self.socket.query(libc::RTM_GETROUTE, libc::NLM_F_DUMP, body, each)?;
        Ok(found)
    }

    /// How packets to this address leave; None when they do not.
    pub fn way_to(&mut self, to: IpAddr) -> io::Result<Option<Way>> {
        let mut found = None;
        let body = |m: &mut Messages| {
            let family = Family::of(to);
            m.raw(&[family.number(), family.bits(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).attr(libc::RTA_DST, &octets(to));
        };
        let each = |m: Received<'_>| {
            let attrs = m.body.get(12..).unwrap_or_default();
            let via = attr(attrs, libc::RTA_GATEWAY).and_then(address);
            found = attr(attrs, libc::RTA_OIF).and_then(|v| u32_at(v, 0)).map(|link| Way { link, via });
        };
        let asked = self.socket.query(libc::RTM_GETROUTE, 0, body, each);
        match asked {
            Err(error) if errno(&error).is_some_and(|n| [libc::ENETUNREACH, libc::EHOSTUNREACH].contains(&n)) => {
                Ok(None)
            }
            other => other.map(|()| found),
        }
    }
}

/// A route to a network of the main table; None for others.
pub fn route_of(body: &[u8]) -> Option<Route> {
    let header = body.get(..12)?;
    let (family, prefix, table, protocol, kind) = (header[0], header[1], header[4], header[5], header[7]);
    let family = [Family::V4, Family::V6].into_iter().find(|f| f.number() == family)?;
    let attrs = &body[12..];
    let address_in = |kind| attr(attrs, kind).and_then(address);
    let link = attr(attrs, libc::RTA_OIF).and_then(|v| u32_at(v, 0));
    let unreachable = kind == libc::RTN_UNREACHABLE;
    if table != libc::RT_TABLE_MAIN || !(unreachable || kind == libc::RTN_UNICAST && link.is_some()) {
        return None;
    }
    let default_metric = if family == Family::V6 { IP6_RT_PRIO_USER } else { 0 };
    Some(Route {
        family,
        dst: Some(Cidr::new(address_in(libc::RTA_DST)?, prefix)),
        via: address_in(libc::RTA_GATEWAY),
        // IPv6 names lo on routes to nowhere.
        link: link.filter(|_| !unreachable),
        source: address_in(libc::RTA_PREFSRC),
        onlink: u32_at(header, 8)? & RTNH_F_ONLINK != 0,
        protocol,
        metric: attr(attrs, libc::RTA_PRIORITY)
            .and_then(|v| u32_at(v, 0))
            .filter(|m| *m != default_metric)
            .unwrap_or(0),
    })
}

fn write_route(m: &mut Messages, route: &Route) {
    let (scope, kind) = match (route.link, route.via) {
        (None, _) => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNREACHABLE),
        (_, Some(_)) => (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST),
        (_, None) => (libc::RT_SCOPE_LINK, libc::RTN_UNICAST),
    };
    let prefix = route.dst.map_or(0, |d| d.prefix);
    let flags = if route.onlink { RTNH_F_ONLINK } else { 0 };
    let mut header =
        [route.family.number(), prefix, 0, 0, libc::RT_TABLE_MAIN, route.protocol, scope, kind, 0, 0, 0, 0];
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    m.raw(&header);
    if let Some(dst) = route.dst {
        m.attr(libc::RTA_DST, &octets(dst.network));
    }
    if let Some(via) = route.via {
        m.attr(libc::RTA_GATEWAY, &octets(via));
    }
    if let Some(source) = route.source {
        m.attr(libc::RTA_PREFSRC, &octets(source));
    }
    if let Some(link) = route.link {
        m.ne32(libc::RTA_OIF, link);
    }
    if route.metric != 0 {
        m.ne32(libc::RTA_PRIORITY, route.metric);
    }
}
