//! Plain routes: a node is the gateway to its pods. Costs nothing, and works only between nodes on one link. Nodes
//! beyond a router are reached by VXLAN, which is told.

use super::{Exit, Here, Path, Peer, Problem, Wanted, reachable, vxlan};
use crate::netproxy::net::Family;

pub fn plan(here: &Here, peers: &[Peer]) -> Wanted {
    let on_link = |peer: &Peer| here.ways.get(&peer.address).filter(|way| way.via.is_none()).map(|way| way.link);
    let (near, far): (Vec<_>, Vec<_>) = peers.iter().cloned().partition(|peer| on_link(peer).is_some());
    let mut wanted = vxlan::plan(here, &far);
    for peer in &near {
        let Some(link) = on_link(peer) else { continue };
        // A gateway has the family of what it leads to.
        for to in reachable(here, peer).filter(|to| to.family() == Family::of(peer.address)) {
            wanted.routes.push(Path { to: *to, exit: Exit::Link(link), via: Some(peer.address), source: None });
        }
    }
    wanted.problems.extend(far.iter().map(|peer| Problem {
        node: peer.name.clone(),
        reason: "NotOnLink",
        message: format!(
            "--overlay=host-gw: {} ({}) shares no link with {} ({}); their pods speak through VXLAN, which needs UDP port 8472 \
             between them",
            peer.name, peer.address, here.name, here.address
        ),
    }));
    wanted
}
