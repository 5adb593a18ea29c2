//! Chains of other firewalls. An accept in our table does not override a drop in theirs: where one of them drops
//! forwarded packets by policy (Docker, ufw), two rules at its head let pods' packets pass, marked as ours and taken
//! away again by cleanup.

use super::expr::write_expr;
use super::{Compare, Expr, Hook, Meta, Nft, Verdict, abi, message_kind, nfgenmsg};
use crate::netproxy::net::Family;
use crate::netproxy::netlink::{Messages, Received, attr, errno, text};
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
    handle: Vec<u8>,
}

/// Both directions.
const RULES_PER_CHAIN: usize = 2;

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

    /// Let packets of interfaces that start with `prefix` pass a foreign chain. True when that was not so before.
    pub fn admit(&mut self, chain: &Foreign, prefix: &str, mark: &str) -> io::Result<bool> {
        let there = self.guests(mark)?;
        let here: Vec<_> = there.into_iter().filter(|guest| guest.chain == *chain).collect();
        if here.len() == RULES_PER_CHAIN {
            return Ok(false);
        }
        self.transaction(|m, seq| {
            here.iter().for_each(|guest| drop_guest(m, seq, guest));
            for name in [Meta::InputName, Meta::OutputName] {
                // Without "append" a rule goes to the head.
                m.message(message_kind(libc::NFT_MSG_NEWRULE), libc::NLM_F_CREATE, seq, |m| {
                    write_guest(m, chain, name, prefix, mark);
                });
            }
        })?;
        Ok(true)
    }

    /// Take back what [`Nft::admit`] added anywhere.
    pub fn withdraw(&mut self, mark: &str) -> io::Result<()> {
        let guests = self.guests(mark)?;
        if guests.is_empty() {
            return Ok(());
        }
        self.transaction(|m, seq| guests.iter().for_each(|guest| drop_guest(m, seq, guest)))
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
            if let (Some(family), Some(handle)) = (m.body.first(), attr(attrs, abi::NFTA_RULE_HANDLE)) {
                let chain =
                    Foreign { family: *family, table: word(abi::NFTA_RULE_TABLE), chain: word(abi::NFTA_RULE_CHAIN) };
                found.push(Guest { chain, handle: handle.to_vec() });
            }
        };
        self.socket.query(message_kind(libc::NFT_MSG_GETRULE), libc::NLM_F_DUMP, body, each)?;
        Ok(found)
    }

    /// Without changes of our own table that could carry the acknowledgement, the kernel is asked for one at the end.
    fn transaction(&mut self, write: impl FnOnce(&mut Messages, u32)) -> io::Result<()> {
        let seq = self.socket.next_seq();
        let mut out = Messages::default();
        let bound = |out: &mut Messages, kind: i32, flags: i32| {
            out.message(kind as u16, flags, seq, |m| {
                m.raw(&nfgenmsg(0, libc::NFNL_SUBSYS_NFTABLES as u16));
            });
        };
        bound(&mut out, libc::NFNL_MSG_BATCH_BEGIN, libc::NLM_F_ACK);
        write(&mut out, seq);
        bound(&mut out, libc::NFNL_MSG_BATCH_END, 0);
        self.socket.send(&out)?;
        match self.socket.answers(seq, |_| ()) {
            // Somebody else took the rule or the chain away meanwhile.
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }
}

fn write_guest(m: &mut Messages, chain: &Foreign, name: Meta, prefix: &str, mark: &str) {
    let rule = [
        Expr::Meta { key: name, into: 0 },
        Expr::Compare { register: 0, how: Compare::Equal, with: prefix.as_bytes().into() },
        Expr::Verdict(Verdict::Accept),
    ];
    m.raw(&nfgenmsg(chain.family, 0)).text(abi::NFTA_RULE_TABLE, &chain.table).text(abi::NFTA_RULE_CHAIN, &chain.chain);
    m.nest(abi::NFTA_RULE_EXPRESSIONS, |m| {
        for expr in &rule {
            m.nest(abi::NFTA_LIST_ELEM, |m| write_expr(m, Family::V4, expr));
        }
    });
    m.attr(abi::NFTA_RULE_USERDATA, &userdata(mark));
}

fn drop_guest(m: &mut Messages, seq: u32, guest: &Guest) {
    m.message(message_kind(libc::NFT_MSG_DELRULE), 0, seq, |m| {
        let chain = &guest.chain;
        m.raw(&nfgenmsg(chain.family, 0)).text(abi::NFTA_RULE_TABLE, &chain.table);
        m.text(abi::NFTA_RULE_CHAIN, &chain.chain).attr(abi::NFTA_RULE_HANDLE, &guest.handle);
    });
}

/// A comment as `nft` writes and shows it: type 0, length, text with its zero.
fn userdata(comment: &str) -> Vec<u8> {
    let text = [comment.as_bytes(), &[0]].concat();
    [&[0, text.len() as u8], &text[..]].concat()
}
