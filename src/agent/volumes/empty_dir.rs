//! `emptyDir`: a directory that lives as long as the pod, on disk or in memory.

use super::{SetUp, VolumeType, fs_group, mounts, ownership};
use crate::agent::resources;
use crate::task::Group;
use anyhow::{Context, bail};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Volume};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub struct EmptyDir;

#[async_trait]
impl VolumeType for EmptyDir {
    fn is(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    async fn set_up(&self, on: &SetUp<'_>, volume: &Volume) -> anyhow::Result<PathBuf> {
        let source = volume.empty_dir.clone().unwrap_or_default();
        let uid = on.pod.metadata.uid.as_deref().unwrap_or_default();
        let place = on.agent.paths.volume(uid, "kubernetes.io~empty-dir", &volume.name);
        let medium = source.medium.as_deref().unwrap_or_default();
        let tmpfs = match medium {
            "" => None,
            "Memory" => Some(memory_size(on, source.size_limit.as_ref().and_then(|q| q.0.parse().ok()))),
            other => bail!("emptyDir medium {other} is not supported"),
        };
        let mode = source.mode.map_or(0o777, |m| m as u32);
        let group = fs_group(on.pod);
        let target = place.clone();
        Group::blocking(move || {
            let fresh = !target.is_dir();
            fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
            if let Some(bytes) = tmpfs {
                mounts::tmpfs(&target, &format!("size={bytes},mode={mode:o}"))?;
            }
            if fresh {
                fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
                if let Some(group) = group {
                    ownership::give_to_group(&target, group)?;
                }
            }
            anyhow::Ok(())
        })
        .await??;
        Ok(place)
    }
}

/// The least of the volume's limit, the pod's memory limit and the node's allocatable memory.
fn memory_size(on: &SetUp<'_>, limit: Option<crate::quantity::Quantity>) -> i64 {
    let node = on.agent.machine.allocatable("memory").map_or(i64::MAX, |q| q.value());
    let pod = pod_memory_limit(on.pod).unwrap_or(i64::MAX);
    limit.map(|q| q.value()).filter(|b| *b > 0).unwrap_or(i64::MAX).min(pod).min(node)
}

fn pod_memory_limit(pod: &Pod) -> Option<i64> {
    resources::pod_limits(pod).memory_bytes
}
