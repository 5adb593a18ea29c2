//! Stale UDP connections: the kernel remembers where a UDP "connection" was sent and keeps sending there after the
//! endpoint is gone. They are deleted by ctnetlink (linux/netfilter/nfnetlink_conntrack.h).

use super::net::{Family, address};
use super::netlink::{Messages, Received, Socket, attr, errno};
use super::plan::Front;
use nix::sys::socket::SockProtocol;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Messages and attributes (nfnetlink_conntrack.h).
const IPCTNL_MSG_CT_GET: i32 = 1;
const IPCTNL_MSG_CT_DELETE: i32 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Entries deleted in one go; more wait for the next change. A busy DNS port has thousands.
const MAX_DELETED: usize = 65_536;

/// One direction of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tuple {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: u8,
}

/// Forget UDP connections to a front that were sent anywhere but to its targets. Returns how many.
pub fn forget_udp(
    family: Family,
    fronts: &BTreeMap<Front, BTreeSet<SocketAddr>>,
    node: &[IpAddr],
) -> io::Result<usize> {
    if fronts.is_empty() {
        return Ok(0);
    }
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
    let mut stale = Vec::new();
    let body = |m: &mut Messages| {
        m.raw(&[family.number(), 0, 0, 0]);
    };
    socket.query(message_kind(IPCTNL_MSG_CT_GET), libc::NLM_F_DUMP, body, |m| {
        if stale.len() < MAX_DELETED {
            stale.extend(stale_entry(m, fronts, node));
        }
    })?;
    for entry in &stale {
        let deleted = socket.request(message_kind(IPCTNL_MSG_CT_DELETE), 0, |m| {
            m.raw(&[family.number(), 0, 0, 0]).nest(CTA_TUPLE_ORIG, |m| {
                m.raw(&entry.original);
            });
            if let Some(zone) = &entry.zone {
                m.attr(CTA_ZONE, zone);
            }
        });
        match deleted {
            Err(error) if errno(&error) == Some(libc::ENOENT) => (),
            other => other?,
        }
    }
    Ok(stale.len())
}

/// What names a connection for deletion: attributes as they came.
struct Entry {
    original: Vec<u8>,
    zone: Option<Vec<u8>>,
}

fn stale_entry(m: Received<'_>, fronts: &BTreeMap<Front, BTreeSet<SocketAddr>>, node: &[IpAddr]) -> Option<Entry> {
    let attrs = m.body.get(4..)?;
    let original = attr(attrs, CTA_TUPLE_ORIG)?;
    let sent = tuple(original)?;
    let answered = tuple(attr(attrs, CTA_TUPLE_REPLY)?)?;
    is_stale(&sent, &answered, fronts, node)
        .then(|| Entry { original: original.to_vec(), zone: attr(attrs, CTA_ZONE).map(<[u8]>::to_vec) })
}

/// Answers come from where the packets were sent.
fn is_stale(sent: &Tuple, answered: &Tuple, fronts: &BTreeMap<Front, BTreeSet<SocketAddr>>, node: &[IpAddr]) -> bool {
    let (to, port) = (sent.destination.ip(), sent.destination.port());
    let exact = fronts.get(&Front { address: Some(to), port });
    let here = fronts.get(&Front { address: None, port }).filter(|_| node.contains(&to));
    let targets = exact.or(here);
    i32::from(sent.protocol) == libc::IPPROTO_UDP && targets.is_some_and(|targets| !targets.contains(&answered.source))
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let (ip, proto) = (attr(bytes, CTA_TUPLE_IP)?, attr(bytes, CTA_TUPLE_PROTO)?);
    let side = |four, six| attr(ip, four).or_else(|| attr(ip, six)).and_then(address);
    let port = |kind| attr(proto, kind).and_then(|v| v.try_into().ok()).map_or(0, u16::from_be_bytes);
    Some(Tuple {
        source: SocketAddr::new(side(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT)),
        destination: SocketAddr::new(side(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(CTA_PROTO_DST_PORT)),
        protocol: *attr(proto, CTA_PROTO_NUM)?.first()?,
    })
}

fn message_kind(kind: i32) -> u16 {
    ((libc::NFNL_SUBSYS_CTNETLINK << 8) | kind) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_is_what_went_elsewhere() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let udp =
            |source: &str, destination: &str| Tuple { source: at(source), destination: at(destination), protocol: 17 };
        let node = ["192.0.2.1".parse().unwrap()];
        let fronts = BTreeMap::from([
            (Front { address: Some("10.43.0.9".parse().unwrap()), port: 53 }, BTreeSet::from([at("10.42.0.2:53")])),
            (Front { address: None, port: 30053 }, BTreeSet::new()),
        ]);
        for (to, from, stale) in [
            ("10.43.0.9:53", "10.42.0.2:53", false),
            ("10.43.0.9:53", "10.42.0.3:53", true),
            ("10.43.0.9:53", "10.43.0.9:53", true),
            ("10.43.0.9:54", "10.42.0.3:53", false),
            ("192.0.2.1:30053", "10.42.0.3:53", true),
            ("192.0.2.9:30053", "10.42.0.3:53", false),
        ] {
            let (sent, answered) = (udp("10.42.0.7:4000", to), udp(from, "10.42.0.7:4000"));
            assert_eq!(is_stale(&sent, &answered, &fronts, &node), stale, "{to} {from}");
            let tcp = Tuple { protocol: 6, ..sent };
            assert!(!is_stale(&tcp, &answered, &fronts, &node), "only UDP");
        }
    }
}
