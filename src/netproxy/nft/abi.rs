//! What of nftables (linux/netfilter/nf_tables.h) both `libc` and `nftnl-sys` lack.

/// Attributes of what we read.
pub const NFTA_CHAIN_TABLE: u16 = 1;
pub const NFTA_CHAIN_NAME: u16 = 3;
pub const NFTA_CHAIN_HOOK: u16 = 4;
pub const NFTA_CHAIN_POLICY: u16 = 5;

pub const NFTA_HOOK_HOOKNUM: u16 = 1;

pub const NFTA_RULE_TABLE: u16 = 1;
pub const NFTA_RULE_CHAIN: u16 = 2;
pub const NFTA_RULE_HANDLE: u16 = 3;
pub const NFTA_RULE_USERDATA: u16 = 7;

pub const NFTA_TABLE_NAME: u16 = 1;
pub const NFTA_TABLE_USE: u16 = 3;

/// Results, operations and flags.
pub const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
/// The kernel names these two like attributes.
pub const NFTA_FIB_F_SADDR: u32 = 1;
pub const NFTA_FIB_F_DADDR: u32 = 2;
pub const NFT_DYNSET_OP_DELETE: i32 = 2;
pub const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
