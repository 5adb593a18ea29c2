//! `persistentVolumeClaim`, as far as the bound volume is a path of this node (`local`, `hostPath`).

use super::{SetUp, VolumeType, fs_group, host_path, ownership};
use crate::task::Group;
use anyhow::{Context, bail};
use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use kube::Api;
use std::path::PathBuf;

pub struct Claim;

#[async_trait]
impl VolumeType for Claim {
    fn is(&self, volume: &Volume) -> bool {
        volume.persistent_volume_claim.is_some()
    }

    async fn set_up(&self, on: &SetUp<'_>, volume: &Volume) -> anyhow::Result<PathBuf> {
        let name = volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone()).unwrap_or_default();
        let namespace = on.pod.metadata.namespace.as_deref().unwrap_or("default");
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(on.agent.client.clone(), namespace);
        let uid = on.pod.metadata.uid.as_deref().unwrap_or_default();
        let kept = &on.agent.kept;
        let claim = kept.claims.ask(&format!("{uid}/{name}"), claims.get(&name)).await;
        let claim = claim.with_context(|| format!("claim {namespace}/{name}"))?;
        let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        let volume_name = claim.spec.as_ref().and_then(|s| s.volume_name.clone());
        let Some(volume_name) = volume_name.filter(|_| bound) else {
            bail!("PersistentVolumeClaim is not bound: \"{name}\"");
        };
        let volumes: Api<PersistentVolume> = Api::all(on.agent.client.clone());
        let found = kept.volumes.ask(&format!("{uid}/{volume_name}"), volumes.get(&volume_name)).await;
        let found = found.with_context(|| format!("volume {volume_name}"))?;
        let spec = found.spec.as_ref().context("the volume has no spec")?;
        if let Some(local) = &spec.local {
            let path = PathBuf::from(&local.path);
            if !path.exists() {
                bail!("path {:?} does not exist", path.display().to_string());
            }
            if let Some(group) = fs_group(on.pod) {
                let target = path.clone();
                Group::blocking(move || ownership::give_to_group(&target, group)).await??;
            }
            return Ok(path);
        }
        if let Some(host) = &spec.host_path {
            let path = PathBuf::from(&host.path);
            host_path::check(&path, host.type_.as_deref().unwrap_or_default())?;
            return Ok(path);
        }
        bail!("volume {volume_name}: this type of volume is not supported")
    }
}
