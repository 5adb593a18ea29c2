//! Volumes of pods: one type a file, found through [`TYPES`].

pub mod atomic;
mod claim;
mod empty_dir;
mod host_path;
pub mod mounts;
mod ownership;
pub mod payload;
pub mod token;

use crate::agent::context::Agent;
use crate::agent::pods::sources::PodSources;
use crate::task::Group;
use anyhow::Context;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Volume};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

/// A type of volume.
#[async_trait]
trait VolumeType: Send + Sync {
    /// Whether a volume is of this type.
    fn is(&self, volume: &Volume) -> bool;
    /// Make it usable and say where it is. Called again until it succeeds, and after a restart: must be idempotent.
    async fn set_up(&self, on: &SetUp<'_>, volume: &Volume) -> anyhow::Result<PathBuf>;
}

/// Every type that is not [`payload`].
static TYPES: &[&dyn VolumeType] = &[&empty_dir::EmptyDir, &host_path::HostPath, &claim::Claim];

/// What setting up may use.
struct SetUp<'a> {
    agent: &'a Agent,
    pod: &'a Pod,
}

/// A pod's volumes, set up.
pub struct Volumes {
    /// Volume name → where it is.
    places: Mutex<HashMap<String, PathBuf>>,
    /// What was last written into payload volumes, so that nothing is written twice.
    written: Mutex<HashMap<String, u64>>,
    tokens: token::Tokens,
    sources: Arc<PodSources>,
    /// One pass at a time.
    busy: tokio::sync::Mutex<()>,
}

/// A volume that cannot be set up; `Display` is the message of the FailedMount event.
#[derive(Debug)]
pub struct MountError {
    pub volume: String,
    pub why: String,
}

impl std::fmt::Display for MountError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MountVolume.SetUp failed for volume \"{}\" : {}", self.volume, self.why)
    }
}

impl std::error::Error for MountError {}

impl Volumes {
    pub fn new(sources: Arc<PodSources>) -> Self {
        Volumes {
            places: Mutex::default(),
            written: Mutex::default(),
            tokens: token::Tokens::default(),
            sources,
            busy: tokio::sync::Mutex::default(),
        }
    }

    /// Where a volume is; None: not set up.
    pub fn place(&self, volume: &str) -> Option<PathBuf> {
        self.places.lock().get(volume).cloned()
    }

    /// Set up every volume that containers use. Gives all failures, not just the first.
    pub async fn set_up(&self, agent: &Agent, pod: &Pod, pod_ips: &[String]) -> Result<(), Vec<MountError>> {
        let _busy = self.busy.lock().await;
        let mut errors = Vec::new();
        for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            if let Err(error) = self.set_up_one(agent, pod, pod_ips, volume).await {
                errors.push(MountError { volume: volume.name.clone(), why: format!("{error:#}") });
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Bring the content of API-made volumes up to date.
    pub async fn refresh(&self, agent: &Agent, pod: &Pod, pod_ips: &[String]) -> Result<(), MountError> {
        let _busy = self.busy.lock().await;
        for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| payload::is_payload(v)) {
            if let Err(error) = self.write_payload(agent, pod, pod_ips, volume).await {
                return Err(MountError { volume: volume.name.clone(), why: format!("{error:#}") });
            }
        }
        Ok(())
    }

    /// When a token has to be renewed.
    pub async fn renew_at(&self) -> Option<jiff::Timestamp> {
        self.tokens.renew_at().await
    }

    async fn set_up_one(&self, agent: &Agent, pod: &Pod, pod_ips: &[String], volume: &Volume) -> anyhow::Result<()> {
        if payload::is_payload(volume) {
            return self.write_payload(agent, pod, pod_ips, volume).await;
        }
        if self.place(&volume.name).is_some() {
            return Ok(());
        }
        let kind = TYPES.iter().find(|t| t.is(volume)).context("this type of volume is not supported")?;
        let place = kind.set_up(&SetUp { agent, pod }, volume).await?;
        self.places.lock().insert(volume.name.clone(), place);
        Ok(())
    }

    async fn write_payload(&self, agent: &Agent, pod: &Pod, pod_ips: &[String], volume: &Volume) -> anyhow::Result<()> {
        let collect = payload::Collect { agent, pod, pod_ips, sources: &self.sources, tokens: &self.tokens };
        let files = payload::collect(&collect, volume).await?;
        let group = fs_group(pod);
        let mut hasher = DefaultHasher::new();
        (&files, group).hash(&mut hasher);
        let hash = hasher.finish();
        if self.written.lock().get(&volume.name) == Some(&hash) {
            return Ok(());
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let place = agent.paths.volume(uid, payload::plugin(volume), &volume.name);
        // ConfigMaps are no secret and may be large; everything else must not reach the disk.
        let in_memory = volume.config_map.is_none();
        let target = place.clone();
        Group::blocking(move || {
            if in_memory {
                mounts::tmpfs(&target, "mode=0755")?;
            } else {
                std::fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
            }
            std::fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            atomic::write(&target, &files, group)
        })
        .await??;
        self.written.lock().insert(volume.name.clone(), hash);
        self.places.lock().insert(volume.name.clone(), place);
        Ok(())
    }
}

/// The group that owns a pod's volumes.
fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    context.fs_group.and_then(|g| u32::try_from(g).ok())
}
