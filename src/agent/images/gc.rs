//! Collecting images that nothing uses, when the disk fills up (upstream's thresholds).

use crate::agent::context::Agent;
use crate::agent::cri::Labels;
use crate::agent::{machine, pause};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

const LOOK_EVERY: Duration = Duration::from_secs(300);
/// Collection begins above the first and ends below the second, percent of the disk.
const HIGH_PERCENT: u64 = 85;
const LOW_PERCENT: u64 = 80;
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

/// Bytes above the low mark, if the disk is above the high one.
fn excess(agent: &Agent) -> Option<u64> {
    let disk = machine::disk(&agent.config.dir).ok()?;
    let used = disk.total - disk.free;
    (used > disk.total / 100 * HIGH_PERCENT).then(|| used - disk.total / 100 * LOW_PERCENT)
}
