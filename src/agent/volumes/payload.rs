//! Volumes whose files come from the API: configMap, secret, downwardAPI, alone or projected; serviceAccountToken and
//! clusterTrustBundle, projected.

use super::atomic::{File, Payload};
use super::token::{Key, Tokens};
use crate::agent::context::Agent;
use crate::agent::pods::fields;
use crate::agent::pods::sources::PodSources;
use anyhow::{Context, bail};
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::api::core::v1::{KeyToPath, Pod, Volume};
use std::collections::BTreeMap;

/// What collecting needs.
pub struct Collect<'a> {
    pub agent: &'a Agent,
    pub pod: &'a Pod,
    pub pod_ips: &'a [String],
    pub sources: &'a PodSources,
    pub tokens: &'a Tokens,
}

/// Whether a volume's content comes from the API.
pub fn is_payload(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Upstream's directory name of the volume's type.
pub fn plugin(volume: &Volume) -> &'static str {
    match volume {
        v if v.config_map.is_some() => "kubernetes.io~configmap",
        v if v.secret.is_some() => "kubernetes.io~secret",
        v if v.downward_api.is_some() => "kubernetes.io~downward-api",
        _ => "kubernetes.io~projected",
    }
}

/// Mode and owner of files that do not say otherwise.
#[derive(Clone, Copy)]
struct Defaults {
    mode: u32,
    user: Option<u32>,
}

impl Defaults {
    fn new(mode: Option<i32>, user: Option<i64>) -> Self {
        Defaults { mode: mode.map_or(0o644, |m| m as u32), user: user.map(|u| u as u32) }
    }

    fn file(self, bytes: Vec<u8>, mode: Option<i32>, user: Option<i64>) -> File {
        File { bytes, mode: mode.map_or(self.mode, |m| m as u32), user: user.map(|u| u as u32).or(self.user) }
    }
}

/// The volume's files as they should be now.
pub async fn collect(on: &Collect<'_>, volume: &Volume) -> anyhow::Result<Payload> {
    let mut out = Payload::new();
    if let Some(source) = &volume.config_map {
        let defaults = Defaults::new(source.default_mode, source.default_user);
        config_map(on, &mut out, &source.name, source.items.as_deref(), source.optional, defaults).await?;
    } else if let Some(source) = &volume.secret {
        let defaults = Defaults::new(source.default_mode, source.default_user);
        let name = source.secret_name.as_deref().unwrap_or_default();
        secret(on, &mut out, name, source.items.as_deref(), source.optional, defaults).await?;
    } else if let Some(source) = &volume.downward_api {
        downward(on, &mut out, source.items.as_deref(), Defaults::new(source.default_mode, None))?;
    } else if let Some(source) = &volume.projected {
        let defaults = Defaults::new(source.default_mode, source.default_user);
        for projection in source.sources.iter().flatten() {
            project(on, &mut out, projection, defaults).await?;
        }
    }
    Ok(out)
}

async fn project(
    on: &Collect<'_>,
    out: &mut Payload,
    projection: &api::VolumeProjection,
    defaults: Defaults,
) -> anyhow::Result<()> {
    if let Some(p) = &projection.config_map {
        config_map(on, out, &p.name, p.items.as_deref(), p.optional, defaults).await
    } else if let Some(p) = &projection.secret {
        secret(on, out, &p.name, p.items.as_deref(), p.optional, defaults).await
    } else if let Some(p) = &projection.downward_api {
        downward(on, out, p.items.as_deref(), defaults)
    } else if let Some(p) = &projection.service_account_token {
        token(on, out, p, defaults).await
    } else if let Some(p) = &projection.cluster_trust_bundle {
        let pem = on.sources.trust_anchors(p).await?;
        out.insert(p.path.clone(), defaults.file(pem.into_bytes(), None, None));
        Ok(())
    } else {
        bail!("projected source is not supported")
    }
}

async fn config_map(
    on: &Collect<'_>,
    out: &mut Payload,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    defaults: Defaults,
) -> anyhow::Result<()> {
    let optional = optional == Some(true);
    let Some(object) = on.sources.config_map(name).await? else {
        if optional {
            return Ok(());
        }
        bail!("configmap \"{name}\" not found");
    };
    let mut data: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    data.extend(object.data.iter().flatten().map(|(k, v)| (k.as_str(), v.clone().into_bytes())));
    data.extend(object.binary_data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.clone())));
    select(out, data, items, optional, "config", defaults)
}

async fn secret(
    on: &Collect<'_>,
    out: &mut Payload,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    defaults: Defaults,
) -> anyhow::Result<()> {
    let optional = optional == Some(true);
    let Some(object) = on.sources.secret(name).await? else {
        if optional {
            return Ok(());
        }
        bail!("secret \"{name}\" not found");
    };
    let data = object.data.iter().flatten().map(|(k, v)| (k.as_str(), v.0.clone())).collect();
    select(out, data, items, optional, "secret", defaults)
}

/// All keys under their names, or the listed ones under their paths.
fn select(
    out: &mut Payload,
    mut data: BTreeMap<&str, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    what: &str,
    defaults: Defaults,
) -> anyhow::Result<()> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        out.extend(data.into_iter().map(|(key, bytes)| (key.to_owned(), defaults.file(bytes, None, None))));
        return Ok(());
    };
    for item in items {
        match data.get_mut(item.key.as_str()) {
            Some(bytes) => {
                out.insert(item.path.clone(), defaults.file(bytes.clone(), item.mode, item.user));
            }
            None if optional => {}
            None => bail!("references non-existent {what} key: {}", item.key),
        }
    }
    Ok(())
}

fn downward(
    on: &Collect<'_>,
    out: &mut Payload,
    items: Option<&[api::DownwardAPIVolumeFile]>,
    defaults: Defaults,
) -> anyhow::Result<()> {
    let node_ip = on.agent.config.node_ip.to_string();
    let place = fields::Place { node_ip: &node_ip, pod_ips: on.pod_ips };
    for item in items.into_iter().flatten() {
        let text = if let Some(field) = &item.field_ref {
            fields::of_pod(on.pod, &field.field_path, &place)?
        } else if let Some(field) = &item.resource_field_ref {
            let first = on.pod.spec.as_ref().and_then(|s| s.containers.first()).context("no containers")?;
            fields::of_resources(on.pod, first, field, &on.agent.machine)?
        } else {
            continue;
        };
        out.insert(item.path.clone(), defaults.file(text.into_bytes(), item.mode, item.user));
    }
    Ok(())
}

async fn token(
    on: &Collect<'_>,
    out: &mut Payload,
    projection: &api::ServiceAccountTokenProjection,
    defaults: Defaults,
) -> anyhow::Result<()> {
    let key = Key {
        audience: projection.audience.clone().unwrap_or_default(),
        seconds: projection.expiration_seconds.unwrap_or(3600),
    };
    let text = on.tokens.get(on.agent, on.pod, &key).await?;
    let mut file = defaults.file(text.into_bytes(), None, projection.user);
    // A token is read by its owner alone where we know who that is (upstream's rule).
    let group = on.pod.spec.as_ref().and_then(|s| s.security_context.as_ref()).and_then(|s| s.fs_group);
    if group.is_some() {
        file.mode = 0o600;
    } else if let Some(user) = only_user(on.pod) {
        file.mode = 0o600;
        file.user.get_or_insert(user);
    }
    out.insert(projection.path.clone(), file);
    Ok(())
}

/// The user that every container runs as, if they say so and agree.
fn only_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users = crate::agent::pods::plan::containers(pod)
        .into_iter()
        .map(|(_, c)| c.security_context.and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|u| u == Some(first)).then_some(first as u32)
}
