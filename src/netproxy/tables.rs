//! The one place that writes our tables: one per family, each change one transaction.

use super::conntrack;
use super::link::Links;
use super::net::{Cidr, Family};
use super::nft::{Chain, Foreign, Nft, Pods, Table};
use super::plan::{Front, Plan};
use super::rules::{self, Setting};
use super::state::{Change, Owner, State};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use tracing::{debug, warn};

/// Tables of this network namespace. Blocking; what it does takes microseconds to milliseconds, a whole table of ten
/// thousand Services some hundred milliseconds.
pub struct Tables {
    nft: Nft,
    families: Vec<One>,
}

struct One {
    table: Table,
    state: State,
    fixed: Vec<Chain>,
    /// The kernel's table is what `state` last said.
    true_to_state: bool,
}

impl Tables {
    pub fn open(name: &str, settings: Vec<Setting>) -> io::Result<Self> {
        let one = |setting: Setting| One {
            table: Table { family: setting.family, name: name.to_owned() },
            fixed: rules::chains(&setting),
            state: State::new(setting),
            true_to_state: false,
        };
        Ok(Tables { nft: Nft::open()?, families: settings.into_iter().map(one).collect() })
    }

    /// The port by which a monitor tells our own changes.
    pub fn port(&self) -> u32 {
        self.nft.port()
    }

    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.families.iter().map(|one| one.table.family)
    }

    /// Note what an owner wants; [`Tables::apply`] makes it so.
    pub fn replace(&mut self, family: Family, owner: &Owner, plan: Plan) {
        if let Some(one) = self.families.iter_mut().find(|one| one.table.family == family) {
            one.state.replace(owner, plan);
        }
    }

    /// Owners that have a plan in any family.
    pub fn owners(&self) -> BTreeSet<Owner> {
        self.families.iter().flat_map(|one| one.state.owners().cloned()).collect()
    }

    /// The kernel's tables may differ from what we last wrote: the next [`Tables::apply`] writes them anew.
    pub fn distrust(&mut self) {
        for one in &mut self.families {
            one.true_to_state = false;
        }
    }

    /// Write what changed. After an error the next call writes everything.
    pub fn apply(&mut self) -> io::Result<()> {
        for one in &mut self.families {
            let fronts = one.apply(&mut self.nft)?;
            one.forget_udp(fronts);
        }
        Ok(())
    }

    /// Put pods' elements into the tables of a former start, which serve until Services are known and everything is
    /// written anew. A table that does not take them is of another make: it is left, since its Services still work.
    pub fn add_to_former(&mut self) -> io::Result<()> {
        for one in &mut self.families {
            let change = one.state.take_change();
            if let Err(error) = self.nft.apply(&one.table, &change.steps()) {
                warn!(%error, "host ports of new pods must wait until the API server has been reached");
            }
        }
        Ok(())
    }

    /// Are our tables there?
    pub fn present(&mut self) -> io::Result<bool> {
        for one in &self.families {
            if self.nft.table_use(&one.table)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Let pods' packets pass where other firewalls drop what is forwarded. Says which chains they now pass, and which
    /// could not be changed.
    pub fn pass_others(&mut self) -> io::Result<Passed> {
        let mut passed = Passed::default();
        let Some(one) = self.families.first() else { return Ok(passed) };
        let networks: Vec<Cidr> = self.families.iter().map(|one| one.state.setting().cluster).collect();
        let table = &one.table.name;
        let pods = Pods { interfaces: &one.state.setting().interface_prefix, networks: &networks };
        for chain in self.nft.forward_drops(table)? {
            match self.nft.admit(&chain, pods, &mark(table)) {
                Ok(true) => passed.now.push(chain),
                Ok(false) => (),
                Err(error) => passed.refused.push((chain, error.to_string())),
            }
        }
        Ok(passed)
    }
}

/// What became of other firewalls' chains.
#[derive(Debug, Default, PartialEq)]
pub struct Passed {
    pub now: Vec<Foreign>,
    pub refused: Vec<(Foreign, String)>,
}

/// The comment on our rules in foreign chains.
fn mark(table: &str) -> String {
    format!("{table}: pods")
}

impl One {
    /// Returns the UDP addresses whose endpoints changed.
    fn apply(&mut self, nft: &mut Nft) -> io::Result<Vec<Front>> {
        if self.true_to_state {
            let change = self.state.take_change();
            self.true_to_state = false;
            nft.apply(&self.table, &change.steps())?;
            self.true_to_state = true;
            trace_change(&change);
            return Ok(change.udp);
        }
        let whole = self.state.whole();
        nft.apply(&self.table, &whole.steps_from_nothing(&self.fixed))?;
        self.true_to_state = true;
        debug!(table = self.table.name, elements = whole.add.values().map(Vec::len).sum::<usize>(), "table written");
        Ok(whole.udp)
    }

    fn forget_udp(&self, fronts: Vec<Front>) {
        if fronts.is_empty() {
            return;
        }
        let targets = self.state.udp_targets(fronts);
        let node = Links::open().and_then(|mut links| links.addresses());
        let node: Vec<_> = node.unwrap_or_default().into_iter().map(|(address, _)| address).collect();
        match conntrack::forget_udp(self.table.family, &targets, &node) {
            Ok(0) => (),
            Ok(count) => debug!(count, "stale UDP connections forgotten"),
            Err(error) => warn!(%error, "stale UDP connections could not be forgotten"),
        }
    }
}

fn trace_change(change: &Change) {
    let count = |elements: &BTreeMap<&str, Vec<_>>| elements.values().map(Vec::len).sum::<usize>();
    debug!(added = count(&change.add), dropped = count(&change.drop), "table changed");
}

/// Remove our tables.
pub fn remove(name: &str) -> io::Result<()> {
    let mut nft = Nft::open()?;
    nft.withdraw(&mark(name))?;
    for family in [Family::V4, Family::V6] {
        nft.remove(&Table { family, name: name.to_owned() })?;
    }
    Ok(())
}
