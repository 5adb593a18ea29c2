//! Changes that happen together or not at all.

use super::expr::add_expr;
use super::raw::name;
use super::{Chain, Element, Expr, Hook, Kind, Set, Step, Table, set};
use crate::netproxy::net::Family;
use crate::netproxy::netlink::{Messages, Socket};
use nftnl::{Batch, MsgType, NlMsg, ProtoFamily};
use std::ffi::c_void;
use std::io;

/// Elements that are copied into libnftnl at once, about half a kilobyte each there. It makes as many messages of them
/// as they need.
const ELEMENTS_AT_ONCE: usize = 256;
/// The kernel's own limit (`NFT_RULE_MAXEXPRS`); so many, each with a name, fit a message.
const EXPRESSIONS_PER_RULE: usize = 128;

const CREATE: i32 = libc::NLM_F_CREATE;
/// Behind the chain's rules; without it a rule becomes the first.
const APPEND: i32 = libc::NLM_F_CREATE | libc::NLM_F_APPEND;

#[derive(Default)]
pub struct Transaction {
    batch: Batch,
    /// Sets created in it.
    sets: u32,
}

impl Transaction {
    pub fn step(&mut self, table: &Table, step: &Step<'_>) -> io::Result<()> {
        let family = table.family;
        let table = nftnl::Table::new(name(&table.name)?, proto_family(family));
        match step {
            Step::AddTable => self.put(&table, MsgType::Add, CREATE),
            Step::DropTable => {
                // Adding first makes the deletion succeed whether the table was there or not.
                self.put(&table, MsgType::Add, CREATE);
                self.put(&table, MsgType::Del, 0);
            }
            Step::AddChain(chain) => self.chain(&table, family, chain)?,
            Step::DropChain(chain) => self.put(&nftnl::Chain::new(name(chain)?, &table), MsgType::Del, 0),
            Step::AddSet(set) => {
                self.sets += 1;
                self.put(&set::define(&table, family, set, self.sets)?, MsgType::Add, CREATE);
            }
            Step::AddElements(set, elements) => self.elements(&table, set, elements, MsgType::Add)?,
            Step::DropElements(set, elements) => self.elements(&table, set, elements, MsgType::Del)?,
        }
        Ok(())
    }

    /// Remove a table that is there.
    pub fn drop_table(&mut self, table: &Table) -> io::Result<()> {
        self.put(&nftnl::Table::new(name(&table.name)?, proto_family(table.family)), MsgType::Del, 0);
        Ok(())
    }

    /// Put a rule at the head of its chain.
    pub fn put_first(&mut self, rule: &nftnl::Rule<'_>) {
        self.put(rule, MsgType::Add, CREATE);
    }

    /// Delete the rule that has this one's handle.
    pub fn drop_rule(&mut self, rule: &nftnl::Rule<'_>) {
        self.put(rule, MsgType::Del, 0);
    }

    /// Send it and wait until the kernel has done it, or has refused all of it.
    pub fn send(self, socket: &mut Socket) -> io::Result<()> {
        let seq = socket.next_seq();
        socket.send(&self.messages(seq))?;
        socket.answers(seq, |_| ())
    }

    fn messages(self, seq: u32) -> Messages {
        Messages::transaction(&self.batch.finalize(), seq)
    }

    fn chain(&mut self, table: &nftnl::Table, family: Family, chain: &Chain) -> io::Result<()> {
        let mut made = nftnl::Chain::new(name(&chain.name)?, table);
        if let Some(base) = chain.base {
            made.set_hook(nftnl_hook(base.hook), base.priority);
            made.set_policy(nftnl::Policy::Accept);
            made.set_type(match base.kind {
                Kind::Filter => nftnl::ChainType::Filter,
                Kind::Nat => nftnl::ChainType::Nat,
            });
        }
        self.put(&made, MsgType::Add, CREATE);
        for exprs in &chain.rules {
            self.put(&rule(&made, family, exprs)?, MsgType::Add, APPEND);
        }
        Ok(())
    }

    fn elements(&mut self, table: &nftnl::Table, set: &Set, elements: &[&Element], what: MsgType) -> io::Result<()> {
        let (with_data, flags) = match what {
            MsgType::Add => (true, CREATE),
            MsgType::Del => (false, 0),
        };
        for some in elements.chunks(ELEMENTS_AT_ONCE) {
            let list = set::list(table, set, some, with_data)?;
            for message in list.elems_iter() {
                self.put(&message, what, flags);
            }
        }
        Ok(())
    }

    fn put(&mut self, message: &impl NlMsg, what: MsgType, flags: i32) {
        self.batch.add(&Flagged { message, flags }, what);
    }
}

/// A rule of a chain.
pub fn rule<'c>(chain: &'c nftnl::Chain<'_>, family: Family, exprs: &[Expr]) -> io::Result<nftnl::Rule<'c>> {
    if exprs.len() > EXPRESSIONS_PER_RULE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a rule has too many expressions"));
    }
    let mut rule = nftnl::Rule::new(chain);
    for expr in exprs {
        add_expr(&mut rule, family, expr)?;
    }
    Ok(rule)
}

fn proto_family(family: Family) -> ProtoFamily {
    match family {
        Family::V4 => ProtoFamily::Ipv4,
        Family::V6 => ProtoFamily::Ipv6,
    }
}

fn nftnl_hook(hook: Hook) -> nftnl::Hook {
    match hook {
        Hook::Prerouting => nftnl::Hook::PreRouting,
        Hook::Input => nftnl::Hook::In,
        Hook::Forward => nftnl::Hook::Forward,
        Hook::Output => nftnl::Hook::Out,
        Hook::Postrouting => nftnl::Hook::PostRouting,
    }
}

/// A message with flags of our choice. By nftnl's own an element that is there already is an error, and a rule is
/// always the last.
struct Flagged<'a, M> {
    message: &'a M,
    flags: i32,
}

// SAFETY: it writes what `message` writes, and zeros as far as the buffer reaches by contract.
unsafe impl<M: NlMsg> NlMsg for Flagged<'_, M> {
    unsafe fn write(&self, buf: *mut c_void, seq: u32, what: MsgType) {
        // libmnl before 1.0.5 leaves the padding between attributes as it finds it, and the memory comes unwritten.
        // SAFETY: the caller promises that `buf` has room for so many bytes.
        unsafe { buf.cast::<u8>().write_bytes(0, nftnl::nft_nlmsg_maxsize() as usize) };
        // SAFETY: what the caller promises of `buf` is what `message` asks for.
        unsafe { self.message.write(buf, seq, what) };
        // SAFETY: a message, which is there now, begins with its header; libmnl aligns messages to four bytes.
        unsafe { (*buf.cast::<libc::nlmsghdr>()).nlmsg_flags = (libc::NLM_F_REQUEST | self.flags) as u16 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netproxy::netlink::{attr, attrs, messages};
    use crate::netproxy::nft::{Data, Field, Verdict};

    const TO_CHAIN: Set = Set { name: "to-chain", key: &[Field::Number], data: &[Field::Verdict], dynamic: None };

    fn table() -> Table {
        Table { family: Family::V4, name: "test".into() }
    }

    /// Message kinds and flags, without begin and end.
    fn written(steps: &[Step<'_>]) -> Vec<(i32, i32)> {
        let mut transaction = Transaction::default();
        steps.iter().for_each(|step| transaction.step(&table(), step).unwrap());
        let made = transaction.messages(7);
        let read: Vec<_> = messages(made.bytes()).collect();
        assert!(read.iter().all(|m| m.seq == 7));
        read[1..read.len() - 1].iter().map(|m| (i32::from(m.kind) & 0xff, i32::from(m.flags))).collect()
    }

    #[test]
    fn flags_are_ours_and_only_the_last_change_is_acknowledged() {
        let chain = Chain { name: "c".into(), base: None, rules: vec![vec![Expr::Verdict(Verdict::Accept)]] };
        let element = Element { key: [0; 4].into(), data: Data::Verdict(Verdict::Goto("c".into())) };
        let steps = [
            Step::DropTable,
            Step::AddTable,
            Step::AddChain(&chain),
            Step::AddSet(&TO_CHAIN),
            Step::AddElements(&TO_CHAIN, vec![&element]),
            Step::DropElements(&TO_CHAIN, vec![&element]),
            Step::DropChain("c"),
        ];
        const REQUEST: i32 = libc::NLM_F_REQUEST;
        assert_eq!(
            written(&steps),
            [
                (libc::NFT_MSG_NEWTABLE, REQUEST | CREATE),
                (libc::NFT_MSG_DELTABLE, REQUEST),
                (libc::NFT_MSG_NEWTABLE, REQUEST | CREATE),
                (libc::NFT_MSG_NEWCHAIN, REQUEST | CREATE),
                (libc::NFT_MSG_NEWRULE, REQUEST | APPEND),
                (libc::NFT_MSG_NEWSET, REQUEST | CREATE),
                (libc::NFT_MSG_NEWSETELEM, REQUEST | CREATE),
                (libc::NFT_MSG_DELSETELEM, REQUEST),
                (libc::NFT_MSG_DELCHAIN, REQUEST | libc::NLM_F_ACK),
            ]
        );
    }

    /// More than one of libnftnl's lists, messages and pages hold: with the longest names a list needs two messages.
    #[test]
    fn no_element_is_lost() {
        let count = 3000u32;
        let all: Vec<_> = (0..count)
            .map(|n| Element { key: n.to_be_bytes().into(), data: Data::Verdict(Verdict::Goto(format!("{n:0>255}"))) })
            .collect();
        let mut transaction = Transaction::default();
        transaction.step(&table(), &Step::AddElements(&TO_CHAIN, all.iter().collect())).unwrap();
        let made = transaction.messages(1);
        let (list, key, value) = (3, 1, 1);
        let mut keys = Vec::new();
        for message in messages(made.bytes()) {
            for (_, element) in attr(&message.body[4..], list).into_iter().flat_map(attrs) {
                keys.push(attr(attr(element, key).unwrap(), value).unwrap().to_vec());
            }
        }
        assert_eq!(keys, (0..count).map(|n| n.to_be_bytes().to_vec()).collect::<Vec<_>>());
    }

    #[test]
    fn a_rule_with_too_much_is_refused() {
        for (count, fits) in [(128, true), (129, false)] {
            let chain =
                Chain { name: "c".into(), base: None, rules: vec![vec![Expr::Verdict(Verdict::Accept); count]] };
            assert_eq!(Transaction::default().step(&table(), &Step::AddChain(&chain)).is_ok(), fits, "{count}");
        }
    }
}
