//! Expressions of rules as attributes.

use super::{Conntrack, Expr, Register, Verdict, abi};
use crate::netproxy::net::Family;
use crate::netproxy::netlink::Messages;

/// The first 32 bit register's number (`NFT_REG32_00`).
const FIRST_REGISTER: u32 = 8;
/// Pseudo register that holds the verdict.
const VERDICT_REGISTER: u32 = 0;

pub fn write_expr(m: &mut Messages, family: Family, expr: &Expr) {
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
        Expr::Masquerade => named("masq", &|m| {
            m.be32(abi::NFTA_MASQ_FLAGS, abi::NF_NAT_RANGE_PROTO_RANDOM_FULLY);
        }),
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
    m.nest(kind, |m| {
        m.attr(abi::NFTA_DATA_VALUE, bytes);
    });
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

pub fn write_verdict(m: &mut Messages, verdict: &Verdict) {
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
