//! Expressions of rules as libnftnl's objects.

use super::raw::{RawExpr, name};
use super::{Conntrack, Expr, Register, Verdict, abi};
use crate::netproxy::net::Family;
use nftnl::expr::{RejectionType, Verdict as NftnlVerdict};
use nftnl::nftnl_sys::*;
use std::io;

/// Add an expression at the rule's end.
pub fn add_expr(rule: &mut nftnl::Rule<'_>, family: Family, expr: &Expr) -> io::Result<()> {
    let made = match expr {
        Expr::Payload { header, offset, length, into } => RawExpr::new(c"payload")?
            .register(NFTNL_EXPR_PAYLOAD_DREG, *into)
            .number(NFTNL_EXPR_PAYLOAD_BASE, *header as u32)
            .number(NFTNL_EXPR_PAYLOAD_OFFSET, *offset)
            .number(NFTNL_EXPR_PAYLOAD_LEN, *length),
        Expr::Meta { key, into } => {
            RawExpr::new(c"meta")?.number(NFTNL_EXPR_META_KEY, *key as u32).register(NFTNL_EXPR_META_DREG, *into)
        }
        Expr::Conntrack { key, into } => conntrack(family, *key, *into)?,
        Expr::AddressType { source, into } => RawExpr::new(c"fib")?
            .register(NFTNL_EXPR_FIB_DREG, *into)
            .number(NFTNL_EXPR_FIB_RESULT, abi::NFT_FIB_RESULT_ADDRTYPE)
            .number(NFTNL_EXPR_FIB_FLAGS, if *source { abi::NFTA_FIB_F_SADDR } else { abi::NFTA_FIB_F_DADDR }),
        Expr::Mask { register, mask } => RawExpr::new(c"bitwise")?
            .register(NFTNL_EXPR_BITWISE_SREG, *register)
            .register(NFTNL_EXPR_BITWISE_DREG, *register)
            .number(NFTNL_EXPR_BITWISE_LEN, mask.len() as u32)
            .value(NFTNL_EXPR_BITWISE_MASK, mask)?
            .value(NFTNL_EXPR_BITWISE_XOR, &vec![0; mask.len()])?,
        Expr::Compare { register, how, with } => RawExpr::new(c"cmp")?
            .register(NFTNL_EXPR_CMP_SREG, *register)
            .number(NFTNL_EXPR_CMP_OP, *how as u32)
            .value(NFTNL_EXPR_CMP_DATA, with)?,
        Expr::Immediate { into, value } => {
            RawExpr::new(c"immediate")?.register(NFTNL_EXPR_IMM_DREG, *into).value(NFTNL_EXPR_IMM_DATA, value)?
        }
        Expr::Member { set, key } => lookup(set, *key)?,
        Expr::Lookup { map, key, into } => lookup(map, *key)?.register(NFTNL_EXPR_LOOKUP_DREG, *into),
        Expr::Dispatch { map, key } => lookup(map, *key)?.number(NFTNL_EXPR_LOOKUP_DREG, libc::NFT_REG_VERDICT as u32),
        Expr::Remember { map, key, data, seconds } => dynset(map, libc::NFT_DYNSET_OP_UPDATE, *key, *data)?
            .long(NFTNL_EXPR_DYNSET_TIMEOUT, u64::from(*seconds) * 1000),
        Expr::Forget { map, key, data } => dynset(map, abi::NFT_DYNSET_OP_DELETE, *key, *data)?,
        Expr::Random { modulus, into } => RawExpr::new(c"numgen")?
            .register(NFTNL_EXPR_NG_DREG, *into)
            .number(NFTNL_EXPR_NG_MODULUS, *modulus)
            .number(NFTNL_EXPR_NG_TYPE, libc::NFT_NG_RANDOM as u32)
            .number(NFTNL_EXPR_NG_OFFSET, 0),
        Expr::DestinationNat { address, port } => {
            nat(family, libc::NFT_NAT_DNAT, *address)?.register(NFTNL_EXPR_NAT_REG_PROTO_MIN, *port)
        }
        Expr::SourceNat { address } => nat(family, libc::NFT_NAT_SNAT, *address)?,
        // Random source ports: two pods that use the same one towards the same target do not collide.
        Expr::Masquerade => RawExpr::new(c"masq")?.number(NFTNL_EXPR_MASQ_FLAGS, abi::NF_NAT_RANGE_PROTO_RANDOM_FULLY),
        Expr::Reject { tcp_reset: false } => unreachable_port(family)?,
        Expr::Reject { tcp_reset: true } => {
            rule.add_expr(&NftnlVerdict::Reject(RejectionType::TcpRst));
            return Ok(());
        }
        Expr::Verdict(verdict) => {
            rule.add_expr(&nftnl_verdict(verdict)?);
            return Ok(());
        }
    };
    made.give(rule);
    Ok(())
}

fn lookup(set: &str, key: Register) -> io::Result<RawExpr> {
    Ok(RawExpr::new(c"lookup")?.name(NFTNL_EXPR_LOOKUP_SET, set)?.register(NFTNL_EXPR_LOOKUP_SREG, key))
}

fn dynset(map: &str, operation: i32, key: Register, data: Register) -> io::Result<RawExpr> {
    Ok(RawExpr::new(c"dynset")?
        .name(NFTNL_EXPR_DYNSET_SET_NAME, map)?
        .number(NFTNL_EXPR_DYNSET_OP, operation as u32)
        .register(NFTNL_EXPR_DYNSET_SREG_KEY, key)
        .register(NFTNL_EXPR_DYNSET_SREG_DATA, data))
}

fn nat(family: Family, kind: i32, address: Register) -> io::Result<RawExpr> {
    Ok(RawExpr::new(c"nat")?
        .number(NFTNL_EXPR_NAT_TYPE, kind as u32)
        .number(NFTNL_EXPR_NAT_FAMILY, family.number().into())
        .register(NFTNL_EXPR_NAT_REG_ADDR_MIN, address))
}

fn conntrack(family: Family, key: Conntrack, into: Register) -> io::Result<RawExpr> {
    /// `IP_CT_DIR_ORIGINAL`
    const ORIGINAL: u8 = 0;
    let (key, original) = match (key, family) {
        (Conntrack::State, _) => (libc::NFT_CT_STATE, false),
        (Conntrack::Status, _) => (libc::NFT_CT_STATUS, false),
        (Conntrack::OriginalDestination, Family::V4) => (libc::NFT_CT_DST_IP, true),
        (Conntrack::OriginalDestination, Family::V6) => (libc::NFT_CT_DST_IP6, true),
        (Conntrack::OriginalDestinationPort, _) => (libc::NFT_CT_PROTO_DST, true),
    };
    let made = RawExpr::new(c"ct")?.number(NFTNL_EXPR_CT_KEY, key as u32).register(NFTNL_EXPR_CT_DREG, into);
    Ok(if original { made.byte(NFTNL_EXPR_CT_DIR, ORIGINAL) } else { made })
}

/// nftnl's own rejection knows only the codes for tables of both families.
fn unreachable_port(family: Family) -> io::Result<RawExpr> {
    let port_unreachable = match family {
        Family::V4 => 3,
        Family::V6 => 4,
    };
    Ok(RawExpr::new(c"reject")?
        .number(NFTNL_EXPR_REJECT_TYPE, libc::NFT_REJECT_ICMP_UNREACH as u32)
        .byte(NFTNL_EXPR_REJECT_CODE, port_unreachable))
}

fn nftnl_verdict(verdict: &Verdict) -> io::Result<NftnlVerdict> {
    Ok(match verdict {
        Verdict::Accept => NftnlVerdict::Accept,
        Verdict::Drop => NftnlVerdict::Drop,
        Verdict::Return => NftnlVerdict::Return,
        Verdict::Goto(chain) => NftnlVerdict::Goto { chain: name(chain)? },
        Verdict::Jump(chain) => NftnlVerdict::Jump { chain: name(chain)? },
    })
}
