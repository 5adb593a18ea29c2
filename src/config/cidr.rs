//! IPv4 networks as flags and settings name them.

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    pub address: Ipv4Addr,
    pub bits: u8,
}

impl Cidr {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (address, bits) = text.split_once('/').context("expected ADDRESS/BITS")?;
        let address: Ipv4Addr = address.parse().context("the address is no IPv4 address")?;
        let bits: u8 = bits.parse().context("the part after / is no number")?;
        ensure!(bits <= 32, "the part after / is larger than 32");
        let cidr = Cidr { address, bits };
        ensure!(u32::from(address) & !cidr.mask() == 0, "host bits are set; write {}/{bits}", cidr.network());
        Ok(cidr)
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0)
    }

    fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) & self.mask())
    }

    /// The `n`th address of the network, if it lies inside.
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        let address = u32::from(self.address).checked_add(n)?;
        self.contains(address.into()).then(|| address.into())
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.address)
    }

    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl TryFrom<String> for Cidr {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        Cidr::parse(&text)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        assert_eq!(Cidr::parse("10.43.0.0/16").unwrap().nth(10), Some(Ipv4Addr::new(10, 43, 0, 10)));
        assert_eq!(Cidr::parse("10.43.0.0/30").unwrap().nth(4), None);
        for (text, expect) in [
            ("10.43.0.0", "expected ADDRESS/BITS"),
            ("10.43.0.0/33", "the part after / is larger than 32"),
            ("10.43.0.1/16", "host bits are set; write 10.43.0.0/16"),
            ("::/16", "the address is no IPv4 address"),
        ] {
            assert_eq!(Cidr::parse(text).unwrap_err().to_string(), expect, "{text}");
        }
    }
}
