//! Who owns whom, over all kinds: only what garbage collection needs.
//!
//! Objects that have owners, or that wait for the collector with one of its finalizers, are kept; of all others only
//! that they exist. Pure; the maps are told what watches tell.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

pub const ORPHAN: &str = "orphan";
pub const FOREGROUND: &str = "foregroundDeletion";

/// An object's UID as a number: half the size of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(u128);

impl Uid {
    pub fn of(text: &str) -> Self {
        uuid::Uuid::parse_str(text).map(|uuid| Uid(uuid.as_u128())).unwrap_or_else(|_| {
            // Foreign UIDs may be anything: FNV-1a, 128 bits.
            let step =
                |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(0x0000000001000000000000000000013B);
            Uid(text.bytes().fold(0x6c62272e07bb014262b821756295c58d, step))
        })
    }

    pub fn as_key(self) -> crate::cache::Key {
        crate::cache::Key::new("", format!("{:032x}", self.0))
    }

    pub fn from_key(key: &crate::cache::Key) -> Option<Self> {
        u128::from_str_radix(&key.name, 16).ok().map(Uid)
    }
}

/// An object that has owners or waits for the collector.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// `deployments.apps`: which monitor saw it.
    pub resource: Arc<str>,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub owners: Vec<OwnerReference>,
    /// It waits until its dependents are let go.
    pub orphaning: bool,
    /// It waits until its dependents are gone.
    pub foreground: bool,
    pub deleting: bool,
}

impl Item {
    pub fn of(resource: &Arc<str>, meta: &ObjectMeta) -> Self {
        let deleting = meta.deletion_timestamp.is_some();
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|f| f == finalizer);
        Item {
            resource: resource.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            orphaning: deleting && has(ORPHAN),
            foreground: deleting && has(FOREGROUND),
            deleting,
        }
    }

    fn matters(&self) -> bool {
        !self.owners.is_empty() || self.orphaning || self.foreground
    }

    /// Does the item hold up the deletion of this owner?
    pub fn blocks(&self, owner: Uid) -> bool {
        self.owners.iter().any(|o| Uid::of(&o.uid) == owner && o.block_owner_deletion == Some(true))
    }
}

/// Grows with the number of objects: 20 bytes for each, a few hundred for those with owners.
#[derive(Default)]
pub struct Graph {
    /// All objects that exist, by the resource they belong to.
    known: HashMap<Arc<str>, HashSet<Uid>>,
    items: HashMap<Uid, Item>,
    dependents: HashMap<Uid, BTreeSet<Uid>>,
    /// To be looked at, once each.
    woken: BTreeSet<Uid>,
}

impl Graph {
    pub fn item(&self, uid: Uid) -> Option<&Item> {
        self.items.get(&uid)
    }

    pub fn dependents(&self, owner: Uid) -> Vec<Item> {
        let uids = self.dependents.get(&owner).into_iter().flatten();
        uids.filter_map(|uid| self.items.get(uid)).cloned().collect()
    }

    pub fn has_dependents(&self, owner: Uid) -> bool {
        self.dependents.get(&owner).is_some_and(|d| !d.is_empty())
    }

    fn exists(&self, uid: Uid) -> bool {
        self.known.values().any(|uids| uids.contains(&uid))
    }

    pub fn wake(&mut self, uid: Uid) {
        self.woken.insert(uid);
    }

    pub fn take_woken(&mut self) -> BTreeSet<Uid> {
        std::mem::take(&mut self.woken)
    }

    /// An object as it is now.
    pub fn observe(&mut self, item: Item) {
        let uid = Uid::of(&item.uid);
        self.known.entry(item.resource.clone()).or_default().insert(uid);
        let before = self.items.get(&uid).cloned();
        if before.as_ref() == Some(&item) {
            return;
        }
        // Those that it names no more have one less to wait for.
        self.wake_waiting_owners(uid);
        self.unlink(uid);
        if !item.matters() {
            return;
        }
        for owner in &item.owners {
            self.dependents.entry(Uid::of(&owner.uid)).or_default().insert(uid);
        }
        // Owners are checked when one of them is not there, or may be waiting for this item.
        let waits = |g: &Graph, owner: Uid| g.items.get(&owner).is_some_and(|o| o.foreground);
        let suspicious = item.owners.iter().map(|o| Uid::of(&o.uid)).any(|o| !self.exists(o) || waits(self, o));
        if suspicious || item.orphaning || item.foreground {
            self.woken.insert(uid);
        }
        if item.foreground && !before.is_some_and(|b| b.foreground) {
            self.wake_dependents(uid);
        }
        self.items.insert(uid, item);
        self.wake_waiting_owners(uid);
    }

    /// An object that is no longer there.
    pub fn remove(&mut self, resource: &Arc<str>, uid: Uid) {
        if let Some(uids) = self.known.get_mut(resource) {
            uids.remove(&uid);
        }
        self.wake_waiting_owners(uid);
        self.unlink(uid);
        self.wake_dependents(uid);
    }

    /// A complete list of one resource: all others of it are gone.
    pub fn replace(&mut self, resource: &Arc<str>, items: Vec<Item>) {
        let now: HashSet<Uid> = items.iter().map(|item| Uid::of(&item.uid)).collect();
        let before = self.known.get(resource).cloned().unwrap_or_default();
        before.difference(&now).for_each(|uid| self.remove(resource, *uid));
        self.known.insert(resource.clone(), now);
        items.into_iter().for_each(|item| self.observe(item));
    }

    /// Start over after all kinds have been listed: whose owner is nowhere must be looked at, all others need not.
    pub fn recheck(&mut self) {
        let suspicious = |item: &Item| {
            item.orphaning || item.foreground || item.owners.iter().any(|o| !self.exists(Uid::of(&o.uid)))
        };
        self.woken = self.items.iter().filter(|(_, item)| suspicious(item)).map(|(uid, _)| *uid).collect();
    }

    /// A resource that is no longer served.
    pub fn forget(&mut self, resource: &Arc<str>) {
        self.known.remove(resource);
        let gone: Vec<Uid> = self.items.iter().filter(|(_, i)| i.resource == *resource).map(|(uid, _)| *uid).collect();
        gone.into_iter().for_each(|uid| self.unlink(uid));
    }

    fn unlink(&mut self, uid: Uid) {
        let Some(item) = self.items.remove(&uid) else { return };
        for owner in item.owners.iter().map(|o| Uid::of(&o.uid)) {
            if let Some(dependents) = self.dependents.get_mut(&owner) {
                dependents.remove(&uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner);
                }
            }
        }
    }

    fn wake_dependents(&mut self, owner: Uid) {
        self.woken.extend(self.dependents.get(&owner).into_iter().flatten());
    }

    /// Owners in foreground deletion look again when a dependent changes or goes.
    fn wake_waiting_owners(&mut self, uid: Uid) {
        let owners: Vec<Uid> =
            self.items.get(&uid).iter().flat_map(|i| i.owners.iter().map(|o| Uid::of(&o.uid))).collect();
        let waiting = owners.into_iter().filter(|o| self.items.get(o).is_some_and(|owner| owner.foreground));
        self.woken.extend(waiting.collect::<Vec<_>>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn item(resource: &str, name: &str, owners: &[&str], edit: Value) -> Item {
        let owners: Vec<_> = owners
            .iter()
            .map(|o| json!({"apiVersion": "v1", "kind": "K", "name": o, "uid": o, "blockOwnerDeletion": true}))
            .collect();
        let mut meta = json!({"name": name, "uid": name, "ownerReferences": owners});
        meta.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
        Item::of(&resource.into(), &serde_json::from_value(meta).unwrap())
    }

    fn woken(graph: &mut Graph) -> Vec<&'static str> {
        let names = ["owner", "a", "b", "c"];
        let woken = graph.take_woken();
        names.into_iter().filter(|name| woken.contains(&Uid::of(name))).collect()
    }

    #[test]
    fn an_owner_in_foreground_deletion_wakes_when_a_dependent_names_it_no_more() {
        let mut graph = Graph::default();
        let deleted = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]});
        for left in [&["b"][..], &[]] {
            graph.observe(item("sets", "owner", &[], deleted.clone()));
            graph.observe(item("sets", "b", &[], json!({})));
            graph.observe(item("pods", "a", &["owner", "b"], json!({})));
            woken(&mut graph);
            graph.observe(item("pods", "a", left, json!({})));
            assert_eq!(woken(&mut graph), ["owner"], "{left:?}");
        }
    }

    #[test]
    fn dependents_wake_when_their_owner_goes() {
        let mut graph = Graph::default();
        graph.observe(item("sets", "owner", &[], json!({})));
        graph.observe(item("pods", "a", &["owner"], json!({})));
        assert!(woken(&mut graph).is_empty(), "the owner is there");
        graph.observe(item("pods", "b", &["nobody"], json!({})));
        assert_eq!(woken(&mut graph), ["b"], "an owner nobody has seen");
        graph.remove(&"sets".into(), Uid::of("owner"));
        assert_eq!(woken(&mut graph), ["a"]);
    }

    #[test]
    fn a_list_without_the_owner_is_its_end() {
        let mut graph = Graph::default();
        graph.replace(&"pods".into(), vec![item("pods", "a", &["owner"], json!({}))]);
        graph.replace(&"sets".into(), vec![item("sets", "owner", &[], json!({}))]);
        graph.recheck();
        assert!(woken(&mut graph).is_empty(), "order of lists does not matter");
        graph.replace(&"sets".into(), vec![]);
        assert_eq!(woken(&mut graph), ["a"]);
    }

    #[test]
    fn foreground_deletion_wakes_both_sides() {
        let mut graph = Graph::default();
        graph.observe(item("sets", "owner", &[], json!({})));
        graph.observe(item("pods", "a", &["owner"], json!({})));
        graph.take_woken();
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOREGROUND]});
        graph.observe(item("sets", "owner", &[], leaving));
        assert_eq!(woken(&mut graph), ["owner", "a"]);
        assert!(graph.dependents(Uid::of("owner"))[0].blocks(Uid::of("owner")));
        graph.remove(&"pods".into(), Uid::of("a"));
        assert_eq!(woken(&mut graph), ["owner"]);
        assert!(!graph.has_dependents(Uid::of("owner")));
    }

    #[test]
    fn uids_survive_their_keys() {
        for text in ["7f3e1c1e-6a1b-4b1e-9d0f-0123456789ab", "anything"] {
            let uid = Uid::of(text);
            assert_eq!(Uid::from_key(&uid.as_key()), Some(uid));
        }
        assert_ne!(Uid::of("a"), Uid::of("b"));
    }
}
