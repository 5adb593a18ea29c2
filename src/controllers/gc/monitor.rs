//! One metadata watch per kind that discovery names; kinds come and go.

use super::graph::{Item, Uid};
use super::{Meta, Shared};
use crate::cache::{Sink, follow};
use crate::controllers::kinds::{self, Served};
use crate::task::Group;
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::debug;

/// How often discovery is asked for new kinds.
const DISCOVERY: Duration = Duration::from_secs(30);
/// Nothing is collected before all kinds have been listed, or this time has passed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events are never owned, and there are many.
const IGNORED: [&str; 2] = ["events", "events.events.k8s.io"];

/// A running monitor.
struct Monitor {
    group: Group,
    listed: watch::Receiver<bool>,
}

pub async fn run(client: Client, shared: Arc<Shared>, group: Group) {
    let mut monitors: HashMap<Arc<str>, Monitor> = HashMap::new();
    let mut ready = false;
    loop {
        match kinds::discover(&client).await {
            Ok(kinds) => {
                let watched: Vec<_> = kinds.served.into_iter().filter(is_watched).collect();
                update(&client, &shared, &group, &mut monitors, watched, kinds.complete);
            }
            Err(error) => debug!(%error, "discovery failed"),
        }
        if !ready && !monitors.is_empty() {
            let lists = monitors.values_mut().map(|monitor| async { drop(monitor.listed.wait_for(|l| *l).await) });
            let _ = tokio::time::timeout(PATIENCE, futures::future::join_all(lists)).await;
            shared.graph.lock().recheck();
            shared.ready.send_replace(true);
            shared.news.notify_one();
            ready = true;
        }
        let pause = if monitors.is_empty() { Duration::from_secs(1) } else { DISCOVERY };
        tokio::time::sleep(pause).await;
    }
}

fn is_watched(served: &Served) -> bool {
    ["list", "watch", "delete"].iter().all(|verb| served.can(verb)) && !IGNORED.contains(&served.qualified().as_str())
}

fn update(
    client: &Client,
    shared: &Arc<Shared>,
    group: &Group,
    monitors: &mut HashMap<Arc<str>, Monitor>,
    watched: Vec<Served>,
    complete: bool,
) {
    let now: HashMap<Arc<str>, Served> = watched.into_iter().map(|s| (s.qualified().into(), s)).collect();
    if complete {
        let gone: Vec<_> = monitors.keys().filter(|resource| !now.contains_key(*resource)).cloned().collect();
        for resource in gone {
            monitors.remove(&resource).inspect(|monitor| monitor.group.cancel());
            shared.graph.lock().forget(&resource);
            shared.kinds.lock().remove(&resource);
        }
    }
    for (resource, served) in now {
        shared.kinds.lock().insert(resource.clone(), served.clone());
        monitors.entry(resource.clone()).or_insert_with(|| {
            let (told, listed) = watch::channel(false);
            let own = group.child();
            let api: Api<Meta> = Api::all_with(client.clone(), &served.resource);
            let sink = Feed { shared: shared.clone(), resource: resource.clone(), found: Vec::new(), told };
            own.spawn("gc monitor", async move { follow(api, &resource, "", sink).await });
            Monitor { group: own, listed }
        });
    }
}

/// From a watch into the graph.
struct Feed {
    shared: Arc<Shared>,
    resource: Arc<str>,
    found: Vec<Item>,
    told: watch::Sender<bool>,
}

impl Feed {
    fn news(&self) {
        if *self.shared.ready.borrow() {
            self.shared.news.notify_one();
        }
    }
}

impl Sink<Meta> for Feed {
    fn found(&mut self, object: Meta) {
        self.found.push(Item::of(&self.resource, &object.metadata));
    }

    fn listed(&mut self, _revision: u64) {
        self.shared.graph.lock().replace(&self.resource, std::mem::take(&mut self.found));
        self.told.send_replace(true);
        self.news();
    }

    fn abandoned(&mut self) {
        self.found = Vec::new();
    }

    fn changed(&mut self, object: Meta) {
        self.shared.graph.lock().observe(Item::of(&self.resource, &object.metadata));
        self.news();
    }

    fn removed(&mut self, object: Meta) {
        let uid = Uid::of(object.metadata.uid.as_deref().unwrap_or(""));
        self.shared.graph.lock().remove(&self.resource, uid);
        self.news();
    }

    fn reached(&mut self, _revision: u64) {}
}
