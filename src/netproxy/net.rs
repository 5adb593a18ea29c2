//! Address families and CIDRs: parse, print, contain.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IP family; the network part keeps one set of tables for each family in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Length of an address in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }

    /// Length of an address in bits.
    pub fn bits(self) -> u8 {
        self.bytes() as u8 * 8
    }

    /// `AF_INET` or `AF_INET6`; nfnetlink's family numbers are the same.
    pub fn number(self) -> u8 {
        match self {
            Family::V4 => libc::AF_INET as u8,
            Family::V6 => libc::AF_INET6 as u8,
        }
    }
}

/// The bytes of an address in network order.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The address in 4 or 16 bytes; None for any other length.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| Ipv4Addr::from(b).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| Ipv6Addr::from(b).into()),
        _ => None,
    }
}

/// A network: its first address and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    pub network: IpAddr,
    pub prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network such as 10.42.0.0/16")]
pub struct BadCidr(String);

impl Cidr {
    /// The network of this prefix length that `address` is in. A prefix longer than the address is cut to a host.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        let prefix = prefix.min(Family::of(address).bits());
        let masked: Vec<u8> =
            octets(address).iter().zip(mask(Family::of(address), prefix)).map(|(a, m)| a & m).collect();
        Cidr { network: self::address(&masked).unwrap_or(address), prefix }
    }

    pub fn family(&self) -> Family {
        Family::of(self.network)
    }

    /// The netmask in network order.
    pub fn mask(&self) -> Vec<u8> {
        mask(self.family(), self.prefix)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && Cidr::new(address, self.prefix).network == self.network
    }

    /// The address at `index` from the first one; None beyond the network's end.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let host_bits = self.family().bits() - self.prefix;
        if host_bits < 128 && index >> host_bits != 0 {
            return None;
        }
        Some(match self.network {
            IpAddr::V4(a) => Ipv4Addr::from(u32::from(a).checked_add(u32::try_from(index).ok()?)?).into(),
            IpAddr::V6(a) => Ipv6Addr::from(u128::from(a).checked_add(index)?).into(),
        })
    }

    /// How far `address` is from the first one; None when it is outside.
    pub fn index(&self, address: IpAddr) -> Option<u128> {
        match (self.contains(address), self.network, address) {
            (true, IpAddr::V4(n), IpAddr::V4(a)) => Some(u128::from(u32::from(a) - u32::from(n))),
            (true, IpAddr::V6(n), IpAddr::V6(a)) => Some(u128::from(a) - u128::from(n)),
            _ => None,
        }
    }

    /// A comma-separated list (`--cluster-cidr` of a dual-stack cluster).
    pub fn list(text: &str) -> Result<Vec<Cidr>, BadCidr> {
        text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::parse).collect()
    }
}

fn mask(family: Family, prefix: u8) -> Vec<u8> {
    (0..family.bytes())
        .map(|i| 0xff00u16.checked_shr(u32::from(prefix).saturating_sub(8 * i as u32).min(8)).unwrap_or(0) as u8)
        .collect()
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > Family::of(address).bits() {
            return Err(bad());
        }
        Ok(Cidr::new(address, prefix))
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = BadCidr;

    fn try_from(text: String) -> Result<Self, BadCidr> {
        text.parse()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let cidr: Cidr = "10.42.3.77/20".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.42.0.0/20");
        assert_eq!(cidr.mask(), [255, 255, 240, 0]);
        for (address, inside) in [("10.42.0.0", true), ("10.42.15.255", true), ("10.42.16.0", false), ("::1", false)] {
            assert_eq!(cidr.contains(address.parse().unwrap()), inside, "{address}");
        }
        assert_eq!(cidr.nth(4095).unwrap().to_string(), "10.42.15.255");
        assert_eq!(cidr.nth(4096), None);
        assert_eq!(cidr.index("10.42.1.2".parse().unwrap()), Some(258));
        let six: Cidr = "fd00::/64".parse().unwrap();
        assert_eq!(six.nth(10).unwrap().to_string(), "fd00::a");
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().mask(), [0; 4]);
        for bad in ["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0/8", "::/129"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        assert_eq!(Cidr::list("10.42.0.0/16, fd00::/48").unwrap().len(), 2);
    }
}
