//! nftables over netlink: tables, chains, rules, sets and elements as messages, and transactions of them. The only
//! file that knows nftables' messages (linux/netfilter/nf_tables.h); what the rules say is [`super::rules`].

mod abi;
mod expr;
mod foreign;

use super::net::Family;
use super::netlink::{Messages, Received, Socket, attr, errno, text};
pub use foreign::Foreign;

use expr::{write_expr, write_verdict};
use nix::sys::socket::SockProtocol;
use std::io;

/// Elements in one message: an attribute holds at most 64 KiB, an element at most about 200 bytes.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// A 32 bit register, 0 to 15. Longer values take several in a row.
pub type Register = u8;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What makes a chain see packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    /// None: reached by jumps only.
    pub base: Option<Base>,
    pub rules: Vec<Vec<Expr>>,
}

/// One field of a concatenated key or value; each takes a multiple of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    Address,
    Proto,
    Port,
    /// A number of ours in the host's order.
    Number,
    Verdict,
}

impl Field {
    /// Padded length in bytes.
    pub fn bytes(self, family: Family) -> usize {
        match self {
            Field::Address => family.bytes(),
            Field::Proto | Field::Port | Field::Number => 4,
            Field::Verdict => 16,
        }
    }

    /// The number by which `nft list` knows how to print the field.
    fn display(self, family: Family) -> u32 {
        match (self, family) {
            (Field::Address, Family::V4) => 7,
            (Field::Address, Family::V6) => 8,
            (Field::Proto, _) => 12,
            (Field::Port, _) => 13,
            (Field::Number, _) => 19,
            (Field::Verdict, _) => 0xffff_ff00,
        }
    }
}

/// A set, or with `data` a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub key: &'static [Field],
    pub data: &'static [Field],
    /// Elements are added by rules and expire; at most this many.
    pub dynamic: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Goto(String),
    Jump(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    None,
    Value(Box<[u8]>),
    Verdict(Verdict),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    pub key: Box<[u8]>,
    pub data: Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal = 0,
    NotEqual = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    InputName = 6,
    OutputName = 7,
    L4Proto = 16,
}

/// Fields of the connection; addresses and ports are those of the original direction's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conntrack {
    State,
    Status,
    OriginalDestination,
    OriginalDestinationPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Network = 1,
    Transport = 2,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    Payload {
        header: Header,
        offset: u32,
        length: u32,
        into: Register,
    },
    Meta {
        key: Meta,
        into: Register,
    },
    Conntrack {
        key: Conntrack,
        into: Register,
    },
    /// The kind of address (`RTN_LOCAL`, …) that routing sees in the packet's destination or source.
    AddressType {
        source: bool,
        into: Register,
    },
    Mask {
        register: Register,
        mask: Box<[u8]>,
    },
    Compare {
        register: Register,
        how: Compare,
        with: Box<[u8]>,
    },
    Immediate {
        into: Register,
        value: Box<[u8]>,
    },
    /// Is the key in the set?
    Member {
        set: &'static str,
        key: Register,
    },
    /// Look the key up; the value goes to `into`. Absent: the rule does not match.
    Lookup {
        map: &'static str,
        key: Register,
        into: Register,
    },
    /// Look a verdict up and take it.
    Dispatch {
        map: &'static str,
        key: Register,
    },
    /// Add the element or renew its time.
    Remember {
        map: &'static str,
        key: Register,
        data: Register,
        seconds: u32,
    },
    /// Drop the element. The kernel wants the value's register here too, and does not read it.
    Forget {
        map: &'static str,
        key: Register,
        data: Register,
    },
    /// A random number below `modulus`, in the host's order.
    Random {
        modulus: u32,
        into: Register,
    },
    DestinationNat {
        address: Register,
        port: Register,
    },
    SourceNat {
        address: Register,
    },
    Masquerade,
    /// Answer "connection refused": by TCP, or by ICMP port unreachable.
    Reject {
        tcp_reset: bool,
    },
    Verdict(Verdict),
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Delete the table with all it holds, if it is there.
    DropTable,
    AddTable,
    AddChain(&'a Chain),
    DropChain(&'a str),
    AddSet(&'a Set),
    AddElements(&'a Set, Vec<&'a Element>),
    DropElements(&'a Set, Vec<&'a Element>),
}

/// Which table: nothing outside it is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub name: String,
}

/// A connection to nftables of one network namespace.
pub struct Nft {
    socket: Socket,
}

impl Nft {
    /// The network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        Ok(Nft { socket: Socket::open(SockProtocol::NetlinkNetFilter)? })
    }

    /// The port by which a [`Monitor`] tells our own changes.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Do all steps or none. The table is there afterwards; to be rid of it there is [`Nft::remove`].
    pub fn apply(&mut self, table: &Table, steps: &[Step<'_>]) -> io::Result<()> {
        if steps.is_empty() {
            return Ok(());
        }
        let seq = self.socket.next_seq();
        let mut writer = Writer { out: Messages::default(), table, seq };
        writer.bound(libc::NFNL_MSG_BATCH_BEGIN);
        for step in steps {
            writer.step(step);
        }
        // The last change asks for an acknowledgement: asking once more for the table is a change without effect.
        writer.message(libc::NFT_MSG_NEWTABLE, libc::NLM_F_ACK, |m, table| {
            m.text(abi::NFTA_TABLE_NAME, &table.name);
        });
        writer.bound(libc::NFNL_MSG_BATCH_END);
        let out = writer.out;
        self.socket.send(&out)?;
        self.socket.answers(seq, |_| ())
    }

    /// Remove the table, if it is there.
    pub fn remove(&mut self, table: &Table) -> io::Result<()> {
        if self.table_use(table)?.is_none() {
            return Ok(());
        }
        let seq = self.socket.next_seq();
        let mut writer = Writer { out: Messages::default(), table, seq };
        writer.bound(libc::NFNL_MSG_BATCH_BEGIN);
        writer.message(libc::NFT_MSG_DELTABLE, libc::NLM_F_ACK, |m, table| {
            m.text(abi::NFTA_TABLE_NAME, &table.name);
        });
        writer.bound(libc::NFNL_MSG_BATCH_END);
        let out = writer.out;
        self.socket.send(&out)?;
        match self.socket.answers(seq, |_| ()) {
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// How many chains and sets the table has; None when there is no such table.
    pub fn table_use(&mut self, table: &Table) -> io::Result<Option<u32>> {
        let mut found = None;
        let kind = message_kind(libc::NFT_MSG_GETTABLE);
        let body = |m: &mut Messages| {
            m.raw(&nfgenmsg(table.family.number(), 0)).text(abi::NFTA_TABLE_NAME, &table.name);
        };
        let each = |m: Received<'_>| {
            let count = attr(m.body.get(4..).unwrap_or_default(), abi::NFTA_TABLE_USE);
            found = count.and_then(|v| v.try_into().ok()).map(u32::from_be_bytes);
        };
        match self.socket.query(kind, 0, body, each) {
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(None),
            other => other.map(|()| found),
        }
    }
}

/// Tells when somebody else changes a table.
pub struct Monitor {
    pub socket: Socket,
}

impl Monitor {
    /// The network namespace of this thread.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        socket.join(libc::NFNLGRP_NFTABLES)?;
        socket.set_nonblocking()?;
        Ok(Monitor { socket })
    }

    /// Read what has happened. True when a table of this name lost something by a hand other than `our_port`'s.
    /// `ENOBUFS` when too much happened at once: then look at the table itself.
    pub fn damaged(&mut self, table: &str, our_port: u32) -> io::Result<bool> {
        let losses = [
            libc::NFT_MSG_DELTABLE,
            libc::NFT_MSG_DELCHAIN,
            libc::NFT_MSG_DELRULE,
            libc::NFT_MSG_DELSET,
            libc::NFT_MSG_DELSETELEM,
        ];
        let mut damaged = false;
        self.socket.poll(|m| {
            // Every kind of object carries its table's name as attribute 1. A set of ours whose elements expire tells
            // that in the kernel's own name (port 0).
            let table_of = || attr(m.body.get(4..).unwrap_or_default(), 1).map(text);
            let loss = losses.iter().any(|kind| message_kind(*kind) == m.kind);
            let expired = m.kind == message_kind(libc::NFT_MSG_DELSETELEM) && m.port == 0;
            damaged |= loss && !expired && m.port != our_port && table_of().is_some_and(|name| name == table);
        })?;
        Ok(damaged)
    }
}

fn message_kind(kind: i32) -> u16 {
    ((libc::NFNL_SUBSYS_NFTABLES << 8) | kind) as u16
}

fn nfgenmsg(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

struct Writer<'a> {
    out: Messages,
    table: &'a Table,
    seq: u32,
}

impl Writer<'_> {
    fn bound(&mut self, kind: i32) {
        self.out.message(kind as u16, 0, self.seq, |m| {
            m.raw(&nfgenmsg(0, libc::NFNL_SUBSYS_NFTABLES as u16));
        });
    }

    fn message(&mut self, kind: i32, flags: i32, body: impl FnOnce(&mut Messages, &Table)) {
        let table = self.table;
        self.out.message(message_kind(kind), flags, self.seq, |m| {
            m.raw(&nfgenmsg(table.family.number(), 0));
            body(m, table);
        });
    }

    fn step(&mut self, step: &Step<'_>) {
        const CREATE: i32 = libc::NLM_F_CREATE;
        const APPEND: i32 = libc::NLM_F_CREATE | libc::NLM_F_APPEND;
        match step {
            Step::AddTable => self.message(libc::NFT_MSG_NEWTABLE, CREATE, |m, t| {
                m.text(abi::NFTA_TABLE_NAME, &t.name);
            }),
            Step::DropTable => {
                // Adding first makes the deletion succeed whether the table was there or not.
                self.step(&Step::AddTable);
                self.message(libc::NFT_MSG_DELTABLE, 0, |m, t| {
                    m.text(abi::NFTA_TABLE_NAME, &t.name);
                });
            }
            Step::AddChain(chain) => {
                self.message(libc::NFT_MSG_NEWCHAIN, CREATE, |m, t| write_chain(m, t, chain));
                for rule in &chain.rules {
                    self.message(libc::NFT_MSG_NEWRULE, APPEND, |m, t| write_rule(m, t, &chain.name, rule));
                }
            }
            Step::DropChain(name) => self.message(libc::NFT_MSG_DELCHAIN, 0, |m, t| {
                m.text(abi::NFTA_CHAIN_TABLE, &t.name).text(abi::NFTA_CHAIN_NAME, name);
            }),
            Step::AddSet(set) => {
                let id = self.seq;
                self.message(libc::NFT_MSG_NEWSET, CREATE, |m, t| write_set(m, t, set, id));
            }
            Step::AddElements(set, elements) => self.elements(libc::NFT_MSG_NEWSETELEM, CREATE, set, elements, true),
            Step::DropElements(set, elements) => self.elements(libc::NFT_MSG_DELSETELEM, 0, set, elements, false),
        }
    }

    fn elements(&mut self, kind: i32, flags: i32, set: &Set, elements: &[&Element], with_data: bool) {
        for some in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.message(kind, flags, |m, t| {
                m.text(abi::NFTA_SET_ELEM_LIST_TABLE, &t.name).text(abi::NFTA_SET_ELEM_LIST_SET, set.name);
                m.nest(abi::NFTA_SET_ELEM_LIST_ELEMENTS, |m| {
                    for element in some {
                        m.nest(abi::NFTA_LIST_ELEM, |m| write_element(m, element, with_data));
                    }
                });
            });
        }
    }
}

fn write_chain(m: &mut Messages, table: &Table, chain: &Chain) {
    m.text(abi::NFTA_CHAIN_TABLE, &table.name).text(abi::NFTA_CHAIN_NAME, &chain.name);
    if let Some(base) = chain.base {
        m.nest(abi::NFTA_CHAIN_HOOK, |m| {
            m.be32(abi::NFTA_HOOK_HOOKNUM, base.hook as u32);
            m.be32(abi::NFTA_HOOK_PRIORITY, base.priority as u32);
        });
        m.be32(abi::NFTA_CHAIN_POLICY, libc::NF_ACCEPT as u32).text(abi::NFTA_CHAIN_TYPE, base.kind);
    }
}

fn write_rule(m: &mut Messages, table: &Table, chain: &str, rule: &[Expr]) {
    m.text(abi::NFTA_RULE_TABLE, &table.name).text(abi::NFTA_RULE_CHAIN, chain);
    m.nest(abi::NFTA_RULE_EXPRESSIONS, |m| {
        for expr in rule {
            m.nest(abi::NFTA_LIST_ELEM, |m| write_expr(m, table.family, expr));
        }
    });
}

fn write_set(m: &mut Messages, table: &Table, set: &Set, id: u32) {
    let length = |fields: &[Field]| fields.iter().map(|f| f.bytes(table.family)).sum::<usize>() as u32;
    let display = |fields: &[Field]| fields.iter().fold(0, |whole, f| (whole << 6) | f.display(table.family));
    let mut flags = if set.data.is_empty() { 0 } else { libc::NFT_SET_MAP };
    if set.dynamic.is_some() {
        flags |= libc::NFT_SET_TIMEOUT | libc::NFT_SET_EVAL;
    }
    m.text(abi::NFTA_SET_TABLE, &table.name).text(abi::NFTA_SET_NAME, set.name);
    m.be32(abi::NFTA_SET_FLAGS, flags as u32);
    m.be32(abi::NFTA_SET_KEY_TYPE, display(set.key)).be32(abi::NFTA_SET_KEY_LEN, length(set.key));
    match set.data {
        [] => (),
        [Field::Verdict] => {
            m.be32(abi::NFTA_SET_DATA_TYPE, Field::Verdict.display(table.family));
        }
        fields => {
            m.be32(abi::NFTA_SET_DATA_TYPE, display(fields)).be32(abi::NFTA_SET_DATA_LEN, length(fields));
        }
    }
    if let Some(size) = set.dynamic {
        m.nest(abi::NFTA_SET_DESC, |m| {
            m.be32(abi::NFTA_SET_DESC_SIZE, size);
        });
    }
    m.be32(abi::NFTA_SET_ID, id);
}

fn write_element(m: &mut Messages, element: &Element, with_data: bool) {
    m.nest(abi::NFTA_SET_ELEM_KEY, |m| {
        m.attr(abi::NFTA_DATA_VALUE, &element.key);
    });
    match &element.data {
        _ if !with_data => (),
        Data::None => (),
        Data::Value(value) => {
            m.nest(abi::NFTA_SET_ELEM_DATA, |m| {
                m.attr(abi::NFTA_DATA_VALUE, value);
            });
        }
        Data::Verdict(verdict) => {
            m.nest(abi::NFTA_SET_ELEM_DATA, |m| write_verdict(m, verdict));
        }
    }
}
