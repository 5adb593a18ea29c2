//! What our table of one family should hold, from the plans of all owners, and the least change that gets it there.
//! Pure: the kernel is never asked.

use super::net::Family;
use super::nft::{Chain, Data, Element, Set, Step, Verdict};
use super::plan::{Front, Place, Plan, Target};
use super::rules::{self, SETS, Setting};
use crate::cache::Key;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

/// Whose plan it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    Service(Key),
    /// A pod's sandbox, by container id.
    Pod(String),
}

/// Owners in the order they came.
type Rank = u64;

/// What the table should hold.
pub struct State {
    setting: Setting,
    plans: HashMap<Owner, (Rank, Plan)>,
    /// The next owner's.
    next_rank: Rank,
    /// Who wants an element, oldest owner first: two Services may name the same external address and port. The first
    /// one has it.
    claims: HashMap<Place, Vec<(Rank, Data)>>,
    chains: BTreeMap<String, (Target, usize)>,
    touched: Touched,
}

/// What was there before the changes not yet taken.
#[derive(Default)]
struct Touched {
    elements: BTreeMap<Place, Option<Data>>,
    chains: BTreeMap<String, Option<Target>>,
    udp: BTreeSet<Front>,
}

/// The difference between the table as it was and as it should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub add_chains: Vec<Chain>,
    pub drop_chains: Vec<String>,
    pub add: BTreeMap<&'static str, Vec<Element>>,
    pub drop: BTreeMap<&'static str, Vec<Element>>,
    /// UDP addresses whose endpoints changed.
    pub udp: Vec<Front>,
}

impl State {
    pub fn new(setting: Setting) -> Self {
        State {
            setting,
            plans: HashMap::new(),
            next_rank: 0,
            claims: HashMap::new(),
            chains: BTreeMap::new(),
            touched: Touched::default(),
        }
    }

    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// The owners that have a plan.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.plans.keys()
    }

    /// Where UDP sent to these fronts may go, all owners together.
    pub fn udp_targets(&self, fronts: Vec<Front>) -> BTreeMap<Front, BTreeSet<SocketAddr>> {
        let mut targets: BTreeMap<Front, BTreeSet<SocketAddr>> =
            fronts.into_iter().map(|f| (f, BTreeSet::new())).collect();
        for (front, endpoints) in self.plans.values().flat_map(|(_, plan)| &plan.udp) {
            if let Some(all) = targets.get_mut(front) {
                all.extend(endpoints);
            }
        }
        targets
    }

    /// Put a plan in place of the owner's former one; an empty plan removes the owner.
    pub fn replace(&mut self, owner: &Owner, new: Plan) {
        let (rank, old) = match self.plans.remove(owner) {
            Some(held) => held,
            None => {
                self.next_rank += 1;
                (self.next_rank, Plan::default())
            }
        };
        for place in old.elements.keys().filter(|place| !new.elements.contains_key(*place)) {
            self.touch(place);
            self.unclaim(place, rank);
        }
        for (place, data) in new.elements.iter().filter(|(place, data)| old.elements.get(*place) != Some(*data)) {
            self.touch(place);
            self.claim(place, rank, data);
        }
        for (name, target) in &new.chains {
            self.touch_chain(name);
            self.chains.entry(name.clone()).or_insert_with(|| (target.clone(), 0)).1 += 1;
        }
        for name in old.chains.keys() {
            self.touch_chain(name);
            if let Some(chain) = self.chains.get_mut(name) {
                chain.1 -= 1;
                if chain.1 == 0 {
                    self.chains.remove(name);
                }
            }
        }
        let fronts = old.udp.keys().chain(new.udp.keys());
        self.touched.udp.extend(fronts.filter(|front| old.udp.get(*front) != new.udp.get(*front)));
        if new != Plan::default() {
            self.plans.insert(owner.clone(), (rank, new));
        }
    }

    fn claim(&mut self, place: &Place, rank: Rank, data: &Data) {
        let claims = self.claims.entry(place.clone()).or_insert_with(|| Vec::with_capacity(1));
        match claims.binary_search_by_key(&rank, |(rank, _)| *rank) {
            Ok(held) => claims[held].1 = data.clone(),
            Err(at) => claims.insert(at, (rank, data.clone())),
        }
    }

    fn unclaim(&mut self, place: &Place, rank: Rank) {
        if let Some(claims) = self.claims.get_mut(place) {
            if let Ok(held) = claims.binary_search_by_key(&rank, |(rank, _)| *rank) {
                claims.remove(held);
            }
            if claims.is_empty() {
                self.claims.remove(place);
            }
        }
    }

    fn effective(&self, place: &Place) -> Option<&Data> {
        self.claims.get(place).and_then(|claims| claims.first()).map(|(_, data)| data)
    }

    fn touch(&mut self, place: &Place) {
        if !self.touched.elements.contains_key(place) {
            let before = self.effective(place).cloned();
            self.touched.elements.insert(place.clone(), before);
        }
    }

    fn touch_chain(&mut self, name: &str) {
        if !self.touched.chains.contains_key(name) {
            let before = self.chains.get(name).map(|(target, _)| target.clone());
            self.touched.chains.insert(name.to_owned(), before);
        }
    }

    /// The change since the last call of this or of [`State::whole`].
    pub fn take_change(&mut self) -> Change {
        let touched = std::mem::take(&mut self.touched);
        let mut change = Change { udp: touched.udp.into_iter().collect(), ..Change::default() };
        for (place, before) in touched.elements {
            let after = self.effective(&place).cloned();
            if before == after {
                continue;
            }
            if let Some(data) = before {
                change.drop.entry(place.set).or_default().push(Element { key: place.key.clone(), data });
            }
            if let Some(data) = after {
                change.add.entry(place.set).or_default().push(Element { key: place.key, data });
            }
        }
        for (name, before) in touched.chains {
            match (before, self.chains.get(&name)) {
                (None, Some((target, _))) => {
                    change.add_chains.push(self.chain(&name, target));
                    change.lead_to(&name, target, true);
                }
                (Some(target), None) => {
                    change.lead_to(&name, &target, false);
                    change.drop_chains.push(name);
                }
                _ => (),
            }
        }
        change
    }

    /// The whole table; forgets the change not yet taken, but for its UDP addresses.
    pub fn whole(&mut self) -> Change {
        let mut change =
            Change { udp: std::mem::take(&mut self.touched).udp.into_iter().collect(), ..Change::default() };
        for (place, claims) in &self.claims {
            if let Some((_, data)) = claims.first() {
                change.add.entry(place.set).or_default().push(Element { key: place.key.clone(), data: data.clone() });
            }
        }
        for (name, (target, _)) in &self.chains {
            change.add_chains.push(self.chain(name, target));
            change.lead_to(name, target, true);
        }
        change
    }

    fn chain(&self, name: &str, target: &Target) -> Chain {
        let family: Family = self.setting.family;
        match target {
            Target::Balancer(balancer) => balancer.chain(family),
            Target::Firewall(ranges) => rules::firewall_chain(name.to_owned(), family, ranges),
        }
    }
}

impl Change {
    /// The element by which a balancer is found.
    fn lead_to(&mut self, name: &str, target: &Target, add: bool) {
        if let Target::Balancer(balancer) = target {
            let data = Data::Verdict(Verdict::Goto(name.to_owned()));
            let into = if add { &mut self.add } else { &mut self.drop };
            into.entry(balancer.balance().name).or_default().push(Element { key: balancer.class().into(), data });
        }
    }

    /// The change as steps of one transaction, on a table that is there.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let mut steps: Vec<_> = self.add_chains.iter().map(Step::AddChain).collect();
        steps.extend(in_sets(&self.drop).map(|(set, elements)| Step::DropElements(set, elements)));
        steps.extend(in_sets(&self.add).map(|(set, elements)| Step::AddElements(set, elements)));
        steps.extend(self.drop_chains.iter().map(|name| Step::DropChain(name)));
        steps
    }

    /// The same as a new table in place of whatever is there. `fixed`: [`rules::chains`], jumps after their targets.
    pub fn steps_from_nothing<'a>(&'a self, fixed: &'a [Chain]) -> Vec<Step<'a>> {
        let mut steps = vec![Step::DropTable, Step::AddTable];
        steps.extend(SETS.iter().map(|set| Step::AddSet(set)));
        steps.extend(fixed.iter().map(Step::AddChain));
        steps.extend(self.steps());
        steps
    }
}

fn in_sets<'a>(
    elements: &'a BTreeMap<&'static str, Vec<Element>>,
) -> impl Iterator<Item = (&'static Set, Vec<&'a Element>)> {
    let of = |name: &str| elements.get(name).map(|e| e.iter().collect::<Vec<_>>());
    SETS.iter().filter_map(move |set| Some((*set, of(set.name)?)))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
