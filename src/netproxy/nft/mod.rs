//! nftables: tables, chains, rules, sets and elements, and transactions of them. The only folder that knows libnftnl,
//! which makes the messages that change something, and nftables' messages (linux/netfilter/nf_tables.h), of which it
//! reads a few; what the rules say is [`super::rules`].

mod abi;
mod expr;
mod foreign;
mod raw;
mod set;
mod transaction;

use super::net::Family;
use super::netlink::{Messages, Received, Socket, attr, errno, text};
pub use foreign::{Foreign, Pods};

use nix::sys::socket::SockProtocol;
use std::io;
use transaction::Transaction;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Filter,
    Nat,
}

/// What makes a chain see packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    pub kind: Kind,
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
    /// The IP family, where a table has both.
    NfProto = 15,
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
        let mut transaction = Transaction::default();
        for step in steps {
            transaction.step(table, step)?;
        }
        transaction.step(table, &Step::AddTable)?;
        transaction.send(&mut self.socket)
    }

    /// Remove the table, if it is there.
    pub fn remove(&mut self, table: &Table) -> io::Result<()> {
        if self.table_use(table)?.is_none() {
            return Ok(());
        }
        let mut transaction = Transaction::default();
        transaction.drop_table(table)?;
        match transaction.send(&mut self.socket) {
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
