//! Collecting images that nothing uses, when the disk fills up (upstream's thresholds).

use crate::agent::context::Agent;
use crate::agent::cri::Labels;
use crate::agent::{machine, pause};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Collection begins when less than the first is free and ends when the second is, percent of the disk (upstream's
/// thresholds, 85 and 80 percent used) …
const BEGIN_FREE_PERCENT: u64 = 15;
const END_FREE_PERCENT: u64 = 20;
/// … but never more than these: a sixth of a large disk need not stay empty.
const BEGIN_FREE_BYTES: u64 = 4 << 30;
const END_FREE_BYTES: u64 = 6 << 30;
/// An image younger than this is not collected: its pod may be on its way.
const LEAST_AGE: Duration = Duration::from_secs(120);

/// Look until the task is dropped.
pub async fn run(agent: Arc<Agent>) {
    // Image id → first seen, last used.
    let mut seen: HashMap<String, (Instant, Instant)> = HashMap::new();
    loop {
        if let Err(error) = pass(&agent, &mut seen).await {
            debug!("looking at images: {error:#}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn pass(agent: &Agent, seen: &mut HashMap<String, (Instant, Instant)>) -> anyhow::Result<()> {
    let now = Instant::now();
    let images = agent.cri.image_list().await?;
    let used: HashSet<String> = agent
        .cri
        .containers(Labels::new())
        .await?
        .into_iter()
        .flat_map(|c| [c.image_ref, c.image.map(|i| i.image).unwrap_or_default()])
        .collect();
    let is_used = |image: &k8s_cri::v1::Image| {
        used.contains(&image.id) || image.repo_tags.iter().chain(&image.repo_digests).any(|name| used.contains(name))
    };
    seen.retain(|id, _| images.iter().any(|i| i.id == *id));
    for image in &images {
        let times = seen.entry(image.id.clone()).or_insert((now, now));
        if is_used(image) {
            times.1 = now;
        }
    }
    let Some(mut to_free) = excess(agent) else { return Ok(()) };
    let imported = match &agent.store {
        Some(store) => store.imported().await?,
        None => HashMap::new(),
    };
    let kept = |image: &k8s_cri::v1::Image| {
        image.pinned || image.repo_tags.iter().any(|tag| tag == pause::IMAGE || imported.contains_key(tag))
    };
    let mut candidates: Vec<_> = images
        .iter()
        .filter(|i| !is_used(i) && !kept(i) && seen.get(&i.id).is_some_and(|(first, _)| first.elapsed() > LEAST_AGE))
        .collect();
    // Unused for longest first.
    candidates.sort_by_key(|i| seen.get(&i.id).map(|(_, last)| *last));
    for image in candidates {
        if to_free == 0 {
            return Ok(());
        }
        match agent.cri.remove_image(&image.id).await {
            Ok(()) => {
                info!("removed unused image {} ({} bytes)", image.repo_tags.first().unwrap_or(&image.id), image.size);
                to_free = to_free.saturating_sub(image.size);
            }
            Err(error) => warn!("removing image {}: {error}", image.id),
        }
    }
    Ok(())
}

/// Bytes to free, if too few are free.
fn excess(agent: &Agent) -> Option<u64> {
    let disk = machine::disk(&agent.config.dir).ok()?;
    let share = |percent: u64, most: u64| (disk.total / 100 * percent).min(most);
    let (begin, end) = (share(BEGIN_FREE_PERCENT, BEGIN_FREE_BYTES), share(END_FREE_PERCENT, END_FREE_BYTES));
    (disk.free < begin).then(|| end - disk.free)
}
