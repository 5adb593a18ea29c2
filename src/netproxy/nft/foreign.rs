//! Chains of other firewalls. An accept in our table does not override a drop in theirs: where one of them drops
//! forwarded packets by policy (Docker, ufw), rules at its head let pods' packets pass, marked as ours and taken away
//! again by cleanup.

use super::raw::name;
use super::transaction::{Transaction, rule};
use super::{Compare, Expr, Hook, Meta, Nft, Verdict, abi, message_kind, nfgenmsg};
use crate::netproxy::net::{Cidr, Family};
use crate::netproxy::netlink::{Messages, Received, attr, errno, text};
use crate::netproxy::rules::Layout;
use nftnl::ProtoFamily;
use std::fmt;
use std::io;

/// A chain of somebody else's table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Foreign {
    /// nfnetlink's number: ip, ip6 or inet.
    family: u8,
    table: String,
    chain: String,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match i32::from(self.family) {
            libc::NFPROTO_IPV4 => "ip",
            libc::NFPROTO_IPV6 => "ip6",
            _ => "inet",
        };
        write!(f, "{family} {} {}", self.table, self.chain)
    }
}

/// A rule of ours in a foreign chain.
struct Guest {
    chain: Foreign,
    handle: u64,
}

/// Longest comment: what a rule keeps for comments is 128 bytes, with type, length and terminating zero. nftnl leaks
/// what it has allocated when it refuses a longer one.
const MARK_BYTES: usize = 125;

/// What to let pass: both directions of each.
#[derive(Clone, Copy, Debug)]
pub struct Pods<'a> {
    /// Start of the names of pods' interfaces and of the overlay's.
    pub interfaces: &'a str,
    /// For what passes from one node's link to another's.
    pub networks: &'a [Cidr],
}

impl Pods<'_> {
    /// The conditions of the rules for a chain.
    fn conditions(&self, chain: &Foreign) -> Vec<Vec<Expr>> {
        let by_name = [Meta::InputName, Meta::OutputName].map(|name| {
            let with = self.interfaces.as_bytes().into();
            vec![Expr::Meta { key: name, into: 0 }, Expr::Compare { register: 0, how: Compare::Equal, with }]
        });
        let known = |cidr: &&Cidr| [libc::NFPROTO_INET as u8, cidr.family().number()].contains(&chain.family);
        let of_network = |cidr: &Cidr| [Layout::source_in, Layout::destination_in].map(|side| of_family(*cidr, side));
        by_name.into_iter().chain(self.networks.iter().filter(known).flat_map(of_network)).collect()
    }
}

/// In a chain of both families the packet's own must be looked at first.
fn of_family(cidr: Cidr, side: fn(Layout, Cidr) -> Vec<Expr>) -> Vec<Expr> {
    let family = cidr.family();
    let with = [family.number()].into();
    let mut exprs =
        vec![Expr::Meta { key: Meta::NfProto, into: 0 }, Expr::Compare { register: 0, how: Compare::Equal, with }];
    exprs.extend(side(Layout { family }, cidr));
    exprs
}

impl Nft {
    /// Chains, not of the table `ours`, that drop forwarded packets by policy. firewalld rejects by its last rule
    /// instead, so its chain counts too.
    pub fn forward_drops(&mut self, ours: &str) -> io::Result<Vec<Foreign>> {
        let mut found = Vec::new();
        let kind = message_kind(libc::NFT_MSG_GETCHAIN);
        self.socket.query(
            kind,
            libc::NLM_F_DUMP,
            |m| {
                m.raw(&nfgenmsg(0, 0));
            },
            |m| {
                let attrs = m.body.get(4..).unwrap_or_default();
                let number = |value: &[u8]| value.try_into().ok().map(u32::from_be_bytes);
                let word = |kind: u16| attr(attrs, kind).map(text).unwrap_or_default();
                let hook =
                    attr(attrs, abi::NFTA_CHAIN_HOOK).and_then(|h| attr(h, abi::NFTA_HOOK_HOOKNUM)).and_then(number);
                let policy = attr(attrs, abi::NFTA_CHAIN_POLICY).and_then(number);
                let families = [libc::NFPROTO_IPV4, libc::NFPROTO_IPV6, libc::NFPROTO_INET];
                let Some(family) = m.body.first().copied().filter(|f| families.contains(&i32::from(*f))) else {
                    return;
                };
                let chain = Foreign { family, table: word(abi::NFTA_CHAIN_TABLE), chain: word(abi::NFTA_CHAIN_NAME) };
                let drops = policy == Some(libc::NF_DROP as u32) || chain.table == "firewalld";
                if hook == Some(Hook::Forward as u32) && drops && chain.table != ours {
                    found.push(chain);
                }
            },
        )?;
        found.sort();
        Ok(found)
    }

    /// Let pods' packets pass a foreign chain. True when that was not so before.
    pub fn admit(&mut self, chain: &Foreign, pods: Pods<'_>, mark: &str) -> io::Result<bool> {
        let there = self.guests(mark)?;
        let here: Vec<_> = there.into_iter().filter(|guest| guest.chain == *chain).collect();
        let conditions = pods.conditions(chain);
        if here.len() == conditions.len() {
            return Ok(false);
        }
        let mut transaction = Transaction::default();
        for guest in &here {
            drop_guest(&mut transaction, guest)?;
        }
        for condition in conditions {
            put_guest(&mut transaction, chain, condition, mark)?;
        }
        self.send_unless_gone(transaction)?;
        Ok(true)
    }

    /// Take back what [`Nft::admit`] added anywhere.
    pub fn withdraw(&mut self, mark: &str) -> io::Result<()> {
        let guests = self.guests(mark)?;
        if guests.is_empty() {
            return Ok(());
        }
        let mut transaction = Transaction::default();
        for guest in &guests {
            drop_guest(&mut transaction, guest)?;
        }
        self.send_unless_gone(transaction)
    }

    /// Our rules in foreign chains.
    fn guests(&mut self, mark: &str) -> io::Result<Vec<Guest>> {
        let mut found = Vec::new();
        let wanted = userdata(mark);
        let body = |m: &mut Messages| {
            m.raw(&nfgenmsg(0, 0));
        };
        let each = |m: Received<'_>| {
            let attrs = m.body.get(4..).unwrap_or_default();
            let word = |kind: u16| attr(attrs, kind).map(text).unwrap_or_default();
            if attr(attrs, abi::NFTA_RULE_USERDATA) != Some(&wanted[..]) {
                return;
            }
            let handle = attr(attrs, abi::NFTA_RULE_HANDLE).and_then(|v| v.try_into().ok()).map(u64::from_be_bytes);
            if let (Some(family), Some(handle)) = (m.body.first(), handle) {
                let chain =
                    Foreign { family: *family, table: word(abi::NFTA_RULE_TABLE), chain: word(abi::NFTA_RULE_CHAIN) };
                found.push(Guest { chain, handle });
            }
        };
        self.socket.query(message_kind(libc::NFT_MSG_GETRULE), libc::NLM_F_DUMP, body, each)?;
        Ok(found)
    }

    fn send_unless_gone(&mut self, transaction: Transaction) -> io::Result<()> {
        match transaction.send(&mut self.socket) {
            // Somebody else took the rule or the chain away meanwhile.
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }
}

impl Foreign {
    /// Its table, to build rules with.
    fn table(&self) -> io::Result<nftnl::Table> {
        let family = match i32::from(self.family) {
            libc::NFPROTO_IPV4 => ProtoFamily::Ipv4,
            libc::NFPROTO_IPV6 => ProtoFamily::Ipv6,
            _ => ProtoFamily::Inet,
        };
        Ok(nftnl::Table::new(name(&self.table)?, family))
    }
}

fn put_guest(transaction: &mut Transaction, chain: &Foreign, condition: Vec<Expr>, mark: &str) -> io::Result<()> {
    let exprs: Vec<_> = condition.into_iter().chain([Expr::Verdict(Verdict::Accept)]).collect();
    if mark.len() > MARK_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("too long as a comment: {mark}")));
    }
    let table = chain.table()?;
    let chain = nftnl::Chain::new(name(&chain.chain)?, &table);
    // Nothing in it depends on the family.
    let mut rule = rule(&chain, Family::V4, &exprs)?;
    rule.set_comment(name(mark)?).map_err(io::Error::other)?;
    transaction.put_first(&rule);
    Ok(())
}

fn drop_guest(transaction: &mut Transaction, guest: &Guest) -> io::Result<()> {
    let table = guest.chain.table()?;
    let chain = nftnl::Chain::new(name(&guest.chain.chain)?, &table);
    let mut rule = nftnl::Rule::new(&chain);
    rule.set_handle(guest.handle);
    transaction.drop_rule(&rule);
    Ok(())
}

/// A comment as `nft` writes and shows it: type 0, length, text with its zero.
fn userdata(comment: &str) -> Vec<u8> {
    let text = [comment.as_bytes(), &[0]].concat();
    [&[0, text.len() as u8], &text[..]].concat()
}
