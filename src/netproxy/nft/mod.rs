//! nftables over netlink: tables, chains, rules, sets and elements as messages, and transactions of them. The only
//! file that knows nftables' messages (linux/netfilter/nf_tables.h); what the rules say is [`super::rules`].

mod abi;

use super::net::Family;
use super::netlink::{Messages, Received, Socket, attr, errno, text};
use nix::sys::socket::SockProtocol;
use std::io;

/// Elements in one message: an attribute holds at most 64 KiB, an element at most about 200 bytes.
const ELEMENTS_PER_MESSAGE: usize = 256;

/// A 32 bit register, 0 to 15. Longer values take several in a row.
pub type Register = u8;
/// The first 32 bit register's number (`NFT_REG32_00`).
const FIRST_REGISTER: u32 = 8;
/// Pseudo register that holds the verdict.
const VERDICT_REGISTER: u32 = 0;

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

    /// Chains of others that drop forwarded packets by policy: "table chain".
    pub fn forward_drops(&mut self, ours: &str) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let kind = message_kind(libc::NFT_MSG_GETCHAIN);
        self.socket.query(
            kind,
            libc::NLM_F_DUMP,
            |m| drop(m.raw(&nfgenmsg(0, 0))),
            |m| {
                let attrs = m.body.get(4..).unwrap_or_default();
                let number = |v: &[u8]| v.try_into().ok().map(u32::from_be_bytes);
                let word = |kind: u16| attr(attrs, kind).map(text).unwrap_or_default();
                let hook = attr(attrs, abi::NFTA_CHAIN_HOOK).and_then(|h| attr(h, abi::NFTA_HOOK_HOOKNUM));
                let policy = attr(attrs, abi::NFTA_CHAIN_POLICY).and_then(number);
                let ip = m.body.first().is_some_and(|f| {
                    [libc::NFPROTO_IPV4, libc::NFPROTO_INET, libc::NFPROTO_IPV6].contains(&i32::from(*f))
                });
                let table = word(abi::NFTA_CHAIN_TABLE);
                if ip
                    && hook.and_then(number) == Some(Hook::Forward as u32)
                    && policy == Some(libc::NF_DROP as u32)
                    && table != ours
                {
                    found.push(format!("{table} {}", word(abi::NFTA_CHAIN_NAME)));
                }
            },
        )?;
        Ok(found)
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
        self.out.message(kind as u16, 0, self.seq, |m| drop(m.raw(&nfgenmsg(0, libc::NFNL_SUBSYS_NFTABLES as u16))));
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
        [Field::Verdict] => drop(m.be32(abi::NFTA_SET_DATA_TYPE, Field::Verdict.display(table.family))),
        fields => {
            m.be32(abi::NFTA_SET_DATA_TYPE, display(fields)).be32(abi::NFTA_SET_DATA_LEN, length(fields));
        }
    }
    if let Some(size) = set.dynamic {
        m.nest(abi::NFTA_SET_DESC, |m| drop(m.be32(abi::NFTA_SET_DESC_SIZE, size)));
    }
    m.be32(abi::NFTA_SET_ID, id);
}

fn write_element(m: &mut Messages, element: &Element, with_data: bool) {
    m.nest(abi::NFTA_SET_ELEM_KEY, |m| drop(m.attr(abi::NFTA_DATA_VALUE, &element.key)));
    match &element.data {
        _ if !with_data => (),
        Data::None => (),
        Data::Value(value) => {
            m.nest(abi::NFTA_SET_ELEM_DATA, |m| drop(m.attr(abi::NFTA_DATA_VALUE, value)));
        }
        Data::Verdict(verdict) => drop(m.nest(abi::NFTA_SET_ELEM_DATA, |m| write_verdict(m, verdict))),
    }
}

fn write_verdict(m: &mut Messages, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Accept => (libc::NF_ACCEPT, None),
        Verdict::Drop => (libc::NF_DROP, None),
        Verdict::Return => (libc::NFT_RETURN, None),
        Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
        Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
    };
    m.nest(abi::NFTA_DATA_VERDICT, |m| {
        m.be32(abi::NFTA_VERDICT_CODE, code as u32);
        if let Some(chain) = chain {
            m.text(abi::NFTA_VERDICT_CHAIN, chain);
        }
    });
}

fn write_expr(m: &mut Messages, family: Family, expr: &Expr) {
    let mut named = |name: &str, body: &dyn Fn(&mut Messages)| {
        m.text(abi::NFTA_EXPR_NAME, name).nest(abi::NFTA_EXPR_DATA, |m| body(m));
    };
    match expr {
        Expr::Payload { header, offset, length, into } => named("payload", &|m| {
            m.be32(abi::NFTA_PAYLOAD_DREG, register(*into)).be32(abi::NFTA_PAYLOAD_BASE, *header as u32);
            m.be32(abi::NFTA_PAYLOAD_OFFSET, *offset).be32(abi::NFTA_PAYLOAD_LEN, *length);
        }),
        Expr::Meta { key, into } => named("meta", &|m| {
            m.be32(abi::NFTA_META_KEY, *key as u32).be32(abi::NFTA_META_DREG, register(*into));
        }),
        Expr::Conntrack { key, into } => named("ct", &|m| write_conntrack(m, family, *key, *into)),
        Expr::AddressType { source, into } => named("fib", &|m| {
            let side = if *source { abi::NFTA_FIB_F_SADDR } else { abi::NFTA_FIB_F_DADDR };
            m.be32(abi::NFTA_FIB_DREG, register(*into))
                .be32(abi::NFTA_FIB_RESULT, abi::NFT_FIB_RESULT_ADDRTYPE)
                .be32(abi::NFTA_FIB_FLAGS, side);
        }),
        Expr::Mask { register: r, mask } => named("bitwise", &|m| {
            m.be32(abi::NFTA_BITWISE_SREG, register(*r)).be32(abi::NFTA_BITWISE_DREG, register(*r));
            m.be32(abi::NFTA_BITWISE_LEN, mask.len() as u32);
            value(m, abi::NFTA_BITWISE_MASK, mask);
            value(m, abi::NFTA_BITWISE_XOR, &vec![0; mask.len()]);
        }),
        Expr::Compare { register: r, how, with } => named("cmp", &|m| {
            m.be32(abi::NFTA_CMP_SREG, register(*r)).be32(abi::NFTA_CMP_OP, *how as u32);
            value(m, abi::NFTA_CMP_DATA, with);
        }),
        Expr::Immediate { into, value: v } => named("immediate", &|m| {
            m.be32(abi::NFTA_IMMEDIATE_DREG, register(*into));
            value(m, abi::NFTA_IMMEDIATE_DATA, v);
        }),
        Expr::Member { set, key } => named("lookup", &|m| lookup(m, set, *key)),
        Expr::Lookup { map, key, into } => named("lookup", &|m| {
            lookup(m, map, *key);
            m.be32(abi::NFTA_LOOKUP_DREG, register(*into));
        }),
        Expr::Dispatch { map, key } => named("lookup", &|m| {
            lookup(m, map, *key);
            m.be32(abi::NFTA_LOOKUP_DREG, VERDICT_REGISTER);
        }),
        Expr::Remember { map, key, data, seconds } => named("dynset", &|m| {
            dynset(m, map, libc::NFT_DYNSET_OP_UPDATE, *key);
            m.be32(abi::NFTA_DYNSET_SREG_DATA, register(*data));
            m.be64(abi::NFTA_DYNSET_TIMEOUT, u64::from(*seconds) * 1000);
        }),
        Expr::Forget { map, key, data } => named("dynset", &|m| {
            dynset(m, map, abi::NFT_DYNSET_OP_DELETE, *key);
            m.be32(abi::NFTA_DYNSET_SREG_DATA, register(*data));
        }),
        Expr::Random { modulus, into } => named("numgen", &|m| {
            m.be32(abi::NFTA_NG_DREG, register(*into)).be32(abi::NFTA_NG_MODULUS, *modulus);
            m.be32(abi::NFTA_NG_TYPE, libc::NFT_NG_RANDOM as u32).be32(abi::NFTA_NG_OFFSET, 0);
        }),
        Expr::DestinationNat { address, port } => named("nat", &|m| {
            nat(m, family, libc::NFT_NAT_DNAT, *address);
            m.be32(abi::NFTA_NAT_REG_PROTO_MIN, register(*port));
        }),
        Expr::SourceNat { address } => named("nat", &|m| nat(m, family, libc::NFT_NAT_SNAT, *address)),
        // Random source ports: two pods that use the same one towards the same target do not collide.
        Expr::Masquerade => {
            named("masq", &|m| drop(m.be32(abi::NFTA_MASQ_FLAGS, abi::NF_NAT_RANGE_PROTO_RANDOM_FULLY)))
        }
        Expr::Reject { tcp_reset: true } => named("reject", &|m| {
            m.be32(abi::NFTA_REJECT_TYPE, libc::NFT_REJECT_TCP_RST as u32).attr(abi::NFTA_REJECT_ICMP_CODE, &[0]);
        }),
        Expr::Reject { tcp_reset: false } => named("reject", &|m| write_unreachable(m, family)),
        Expr::Verdict(verdict) => named("immediate", &|m| {
            m.be32(abi::NFTA_IMMEDIATE_DREG, VERDICT_REGISTER);
            m.nest(abi::NFTA_IMMEDIATE_DATA, |m| write_verdict(m, verdict));
        }),
    }
}

fn register(register: Register) -> u32 {
    FIRST_REGISTER + u32::from(register)
}

fn value(m: &mut Messages, kind: u16, bytes: &[u8]) {
    m.nest(kind, |m| drop(m.attr(abi::NFTA_DATA_VALUE, bytes)));
}

fn lookup(m: &mut Messages, set: &str, key: Register) {
    m.text(abi::NFTA_LOOKUP_SET, set).be32(abi::NFTA_LOOKUP_SREG, register(key));
}

fn dynset(m: &mut Messages, map: &str, operation: i32, key: Register) {
    m.text(abi::NFTA_DYNSET_SET_NAME, map).be32(abi::NFTA_DYNSET_OP, operation as u32);
    m.be32(abi::NFTA_DYNSET_SREG_KEY, register(key));
}

fn nat(m: &mut Messages, family: Family, kind: i32, address: Register) {
    m.be32(abi::NFTA_NAT_TYPE, kind as u32).be32(abi::NFTA_NAT_FAMILY, family.number().into());
    m.be32(abi::NFTA_NAT_REG_ADDR_MIN, register(address));
}

fn write_conntrack(m: &mut Messages, family: Family, key: Conntrack, into: Register) {
    let (key, original) = match (key, family) {
        (Conntrack::State, _) => (libc::NFT_CT_STATE, false),
        (Conntrack::Status, _) => (libc::NFT_CT_STATUS, false),
        (Conntrack::OriginalDestination, Family::V4) => (abi::NFT_CT_DST_IP, true),
        (Conntrack::OriginalDestination, Family::V6) => (abi::NFT_CT_DST_IP6, true),
        (Conntrack::OriginalDestinationPort, _) => (libc::NFT_CT_PROTO_DST, true),
    };
    m.be32(abi::NFTA_CT_KEY, key as u32).be32(abi::NFTA_CT_DREG, register(into));
    if original {
        m.attr(abi::NFTA_CT_DIRECTION, &[0]);
    }
}

fn write_unreachable(m: &mut Messages, family: Family) {
    let port_unreachable = match family {
        Family::V4 => 3,
        Family::V6 => 4,
    };
    m.be32(abi::NFTA_REJECT_TYPE, libc::NFT_REJECT_ICMP_UNREACH as u32);
    m.attr(abi::NFTA_REJECT_ICMP_CODE, &[port_unreachable]);
}
