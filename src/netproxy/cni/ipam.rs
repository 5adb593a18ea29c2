//! Pod addresses of this node: one small file per attachment, names and addresses that are never handed out twice.
//!
//! Files are renamed into place but not flushed to the disk: they must survive the end of a process, and that they do.
//! A power cut ends all pods with their namespaces, and leases without a namespace are released at start anyway.

use super::wire::PortMapping;
use crate::netproxy::net::{Cidr, Family};
use crate::netproxy::netns;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// An attachment: container id and interface name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub container_id: String,
    pub ifname: String,
}

/// What an attachment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    pub container_id: String,
    pub ifname: String,
    pub netns: PathBuf,
    pub addresses: Vec<IpAddr>,
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// "namespace/name", for people.
    #[serde(default)]
    pub pod: String,
}

impl Lease {
    pub fn id(&self) -> Id {
        Id { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no address is left in {0}")]
    Full(Cidr),
    #[error("the lease {0:?} cannot be written")]
    Write(PathBuf, #[source] io::Error),
    #[error("{0:?} is no valid container id or interface name")]
    Name(String),
}

/// All leases of this node.
pub struct Ipam {
    dir: PathBuf,
    pools: Vec<Cidr>,
    leases: BTreeMap<Id, Lease>,
    used: BTreeSet<IpAddr>,
    /// What pods had before the host was started, by "namespace/name": they get the same again, so that Services whose
    /// endpoints nobody can change while the server is away go on.
    before: HashMap<String, Vec<IpAddr>>,
    /// Where the next search starts: an address just given up rests as long as possible.
    next: HashMap<Family, u128>,
}

impl Ipam {
    /// Read the leases in `dir`. Those whose namespace is gone are released and returned.
    pub fn open(dir: &Path, pools: Vec<Cidr>) -> io::Result<(Self, Vec<Lease>)> {
        std::fs::create_dir_all(dir)?;
        let mut ipam = Ipam {
            dir: dir.to_owned(),
            pools,
            leases: BTreeMap::new(),
            used: BTreeSet::new(),
            before: HashMap::new(),
            next: HashMap::new(),
        };
        let mut gone = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            match read(&path) {
                Some(lease) if netns::exists(&lease.netns) => ipam.keep(lease),
                Some(lease) => {
                    info!(pod = lease.pod, addresses = ?lease.addresses, "released: its network namespace is gone");
                    let _ = std::fs::remove_file(&path);
                    ipam.before.insert(lease.pod.clone(), lease.addresses.clone());
                    gone.push(lease);
                }
                None => {
                    warn!(?path, "not a lease; removed");
                    let _ = std::fs::remove_file(&path);
                }
            }
        }
        for pool in &ipam.pools {
            let last = ipam.used.iter().filter_map(|a| pool.index(*a)).max();
            ipam.next.insert(pool.family(), last.map_or(FIRST_INDEX, |last| last + 1));
        }
        Ok((ipam, gone))
    }

    fn keep(&mut self, lease: Lease) {
        self.used.extend(&lease.addresses);
        self.leases.insert(lease.id(), lease);
    }

    /// Hand out addresses of these from now on. Returns leases with addresses outside.
    pub fn replace_pools(&mut self, pools: Vec<Cidr>) -> Vec<Lease> {
        self.pools = pools;
        self.next.clear();
        let outside = |lease: &&Lease| !lease.addresses.iter().all(|a| self.pools.iter().any(|pool| pool.contains(*a)));
        self.leases.values().filter(outside).cloned().collect()
    }

    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    pub fn get(&self, id: &Id) -> Option<&Lease> {
        self.leases.get(id)
    }

    /// The addresses of an attachment: what it has, or one new from each pool. The lease is written before this returns.
    pub fn lease(&mut self, id: &Id, netns: &Path, pod: &str, ports: Vec<PortMapping>) -> Result<Lease, Error> {
        let addresses = match self.leases.get(id) {
            Some(held) => held.addresses.clone(),
            None => match self.had_before(pod) {
                Some(addresses) => addresses,
                None => self.pools.clone().into_iter().map(|pool| self.free(pool)).collect::<Result<_, _>>()?,
            },
        };
        let lease = Lease {
            container_id: id.container_id.clone(),
            ifname: id.ifname.clone(),
            netns: netns.to_owned(),
            addresses,
            ports,
            pod: pod.to_owned(),
        };
        let path = self.path(id)?;
        write(&path, &lease).map_err(|error| Error::Write(path, error))?;
        for (pool, address) in self.pools.iter().zip(&lease.addresses) {
            if let Some(index) = pool.index(*address) {
                self.next.insert(pool.family(), index + 1);
            }
        }
        self.keep(lease.clone());
        Ok(lease)
    }

    /// Give an attachment's addresses back; None when it had none.
    pub fn release(&mut self, id: &Id) -> Result<Option<Lease>, Error> {
        let path = self.path(id)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::Write(path, error)),
            _ => (),
        }
        let lease = self.leases.remove(id);
        for address in lease.iter().flat_map(|lease| &lease.addresses) {
            self.used.remove(address);
        }
        Ok(lease)
    }

    /// The addresses that this pod had before the start of the host, once, if they can be handed out.
    fn had_before(&mut self, pod: &str) -> Option<Vec<IpAddr>> {
        let addresses = self.before.remove(pod)?;
        let fit = addresses.len() == self.pools.len()
            && self.pools.iter().zip(&addresses).all(|(pool, address)| pool.contains(*address))
            && !addresses.iter().any(|address| self.used.contains(address));
        fit.then_some(addresses)
    }

    fn free(&mut self, pool: Cidr) -> Result<IpAddr, Error> {
        let kept: BTreeSet<IpAddr> = self.before.values().flatten().copied().collect();
        match self.free_beside(pool, &kept) {
            Err(Error::Full(_)) if !kept.is_empty() => {
                self.before.clear();
                self.free_beside(pool, &BTreeSet::new())
            }
            found => found,
        }
    }

    fn free_beside(&self, pool: Cidr, kept: &BTreeSet<IpAddr>) -> Result<IpAddr, Error> {
        let host_bits = u32::from(pool.family().bits() - pool.prefix);
        // Without the network itself, the next address (kept for the node), and the broadcast address.
        let end = 1u128.checked_shl(host_bits).map_or(u128::MAX, |size| size.saturating_sub(1));
        let start =
            self.next.get(&pool.family()).copied().unwrap_or(FIRST_INDEX).clamp(FIRST_INDEX, end.max(FIRST_INDEX));
        let candidates = (start..end).chain(FIRST_INDEX..start.min(end));
        // No more than one candidate per used or kept address can be taken.
        let most = self.used.len() + kept.len() + 1;
        let mut addresses = candidates.take(most).filter_map(|index| pool.nth(index));
        addresses.find(|address| !self.used.contains(address) && !kept.contains(address)).ok_or(Error::Full(pool))
    }

    /// Names come from the runtime and become part of a path.
    fn path(&self, id: &Id) -> Result<PathBuf, Error> {
        for name in [&id.container_id, &id.ifname] {
            let fine = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
            if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.bytes().all(fine) {
                return Err(Error::Name(name.clone()));
            }
        }
        Ok(self.dir.join(format!("{}@{}", id.container_id, id.ifname)))
    }
}

/// The first address of a pool that pods get.
const FIRST_INDEX: u128 = 2;

/// The leases in a directory whose namespace still lives.
pub fn living(dir: &Path) -> Vec<Lease> {
    let paths = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.filter_map(|path| read(&path)).filter(|lease| netns::exists(&lease.netns)).collect()
}

fn read(path: &Path) -> Option<Lease> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write(path: &Path, lease: &Lease) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    std::fs::write(&temporary, serde_json::to_vec(lease)?)?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> Id {
        Id { container_id: name.into(), ifname: "eth0".into() }
    }

    fn lease(ipam: &mut Ipam, name: &str) -> Result<String, Error> {
        let here = Path::new("/proc/self/ns/net");
        ipam.lease(&id(name), here, "default/web", Vec::new()).map(|lease| lease.addresses[0].to_string())
    }

    #[test]
    fn pods_have_their_addresses_again_after_a_boot() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Ipam::open(dir.path(), vec!["10.42.0.0/29".parse().unwrap()]).unwrap();
        let (mut ipam, _) = open();
        let of = |ipam: &mut Ipam, container: &str, pod: &str| {
            let lease = ipam.lease(&id(container), Path::new("/no/such/namespace"), pod, Vec::new()).unwrap();
            lease.addresses[0].to_string()
        };
        assert_eq!(of(&mut ipam, "a", "ns/first"), "10.42.0.2");
        assert_eq!(of(&mut ipam, "b", "ns/second"), "10.42.0.3");
        let (mut ipam, gone) = open();
        assert_eq!(gone.len(), 2);
        assert_eq!(of(&mut ipam, "c", "ns/second"), "10.42.0.3", "in whatever order they come");
        assert_eq!(of(&mut ipam, "d", "ns/new"), "10.42.0.4", "not what another one had");
        assert_eq!(of(&mut ipam, "e", "ns/first"), "10.42.0.2");
        assert_eq!(of(&mut ipam, "f", "ns/second"), "10.42.0.5", "once");
        let (mut ipam, _) = open();
        let all: Vec<_> = (0..5).map(|n| of(&mut ipam, &format!("g{n}"), &format!("ns/other-{n}"))).collect();
        assert_eq!(all.len(), 5, "nothing is kept when addresses run out: {all:?}");
    }

    #[test]
    fn addresses_survive_a_restart_and_rest_after_use() {
        let dir = tempfile::tempdir().unwrap();
        let pools = || vec!["10.42.0.0/29".parse().unwrap()];
        let (mut ipam, _) = Ipam::open(dir.path(), pools()).unwrap();
        assert_eq!(lease(&mut ipam, "a").unwrap(), "10.42.0.2");
        assert_eq!(lease(&mut ipam, "b").unwrap(), "10.42.0.3");
        assert_eq!(lease(&mut ipam, "a").unwrap(), "10.42.0.2", "asked again, the same");
        assert_eq!(ipam.release(&id("b")).unwrap().unwrap().pod, "default/web");
        assert_eq!(ipam.release(&id("b")).unwrap(), None);

        let (mut ipam, gone) = Ipam::open(dir.path(), pools()).unwrap();
        assert!(gone.is_empty());
        assert_eq!(lease(&mut ipam, "c").unwrap(), "10.42.0.3");
        for (name, address) in [("d", "10.42.0.4"), ("e", "10.42.0.5"), ("f", "10.42.0.6")] {
            assert_eq!(lease(&mut ipam, name).unwrap(), address);
        }
        assert!(matches!(lease(&mut ipam, "g"), Err(Error::Full(_))), "the broadcast address is not a pod's");
        ipam.release(&id("c")).unwrap();
        ipam.release(&id("e")).unwrap();
        assert_eq!(lease(&mut ipam, "g").unwrap(), "10.42.0.3", "around the end");
    }

    #[test]
    fn leases_without_a_namespace_are_released_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let pools = || vec!["10.42.0.0/24".parse().unwrap()];
        let (mut ipam, _) = Ipam::open(dir.path(), pools()).unwrap();
        lease(&mut ipam, "alive").unwrap();
        ipam.lease(&id("dead"), &dir.path().join("gone"), "", Vec::new()).unwrap();
        std::fs::write(dir.path().join("torn"), "{").unwrap();
        let (ipam, gone) = Ipam::open(dir.path(), pools()).unwrap();
        assert_eq!(gone.iter().map(|l| &l.container_id).collect::<Vec<_>>(), ["dead"]);
        assert_eq!(ipam.leases().count(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ipam, _) = Ipam::open(dir.path(), vec!["10.42.0.0/24".parse().unwrap()]).unwrap();
        for bad in ["../x", "", ".hidden", "a/b"] {
            assert!(matches!(lease(&mut ipam, bad), Err(Error::Name(_))), "{bad:?}");
        }
    }
}
