//! A host without any network (DESIGN D11): it gets an address of its own, so that everything starts and pods reach
//! each other and the API. When a network appears, everything starts again with that address; pods go on.

use crate::config::{self, Node};
use crate::netproxy;
use crate::task::Group;
use anyhow::Context;
use std::time::Duration;
use tracing::warn;

/// How often a network is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// The end of a run that is to be followed by another one with what is found then.
#[derive(Debug)]
pub struct Again(String);

impl std::fmt::Display for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Again {}

/// Give the host the address, if it needs one, until there is a better one.
pub fn prepare(node: &Node, root: &Group) -> anyhow::Result<()> {
    let own = config::UNPLUGGED.into();
    if !node.unplugged {
        return netproxy::remove_own_address(own).context("take back the address of a host without network");
    }
    warn!("this host has no network; using {own} until there is one");
    netproxy::add_own_address(own).context("an address for a host without network")?;
    let group = root.clone();
    root.spawn("network", async move {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(address) = config::default_address() {
                let why = format!("there is a network now; starting again with the address {address}");
                return group.fail(Again(why).into());
            }
        }
    });
    Ok(())
}
