//! One container from spec to started: image, configuration, mounts, creation, start, post-start hook.

use super::plan::Start;
use super::shared::Shared;
use super::sources::PodSources;
use super::{env, hooks, hosts, security};
use crate::agent::context::Agent;
use crate::agent::images::pull;
use crate::agent::labels;
use crate::agent::paths::Paths;
use crate::agent::resources;
use crate::agent::volumes::{Volumes, mounts};
use crate::events::{Normal, Warning};
use crate::task::Group;
use anyhow::Context as _;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything a pod's containers are made from.
#[derive(Clone)]
pub struct Parts {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub shared: Arc<Shared>,
    pub sources: Arc<PodSources>,
    pub volumes: Arc<Volumes>,
}

/// Why a container does not run; becomes its waiting state.
pub type Failure = pull::Failure;

/// The sandbox that a container joins.
pub struct Place<'a> {
    pub sandbox: &'a str,
    pub config: &'a cri::PodSandboxConfig,
    pub ips: &'a [String],
    /// The container whose processes an ephemeral container wants to see.
    pub target: Option<String>,
}

impl Parts {
    /// Start one container. Events are recorded on the way.
    pub async fn start(&self, start: &Start, container: &Container, place: &Place<'_>) -> Result<(), Failure> {
        let agent = &*self.agent;
        let name = Some(container.name.as_str());
        let again = start.attempt > 0;
        let image = pull::ensure(agent, &self.pod, container, place.config, &self.sources, &self.shared.pulls, again)
            .await
            .inspect_err(|f| {
                agent.event(&self.pod, name, Warning, "Failed", format!("Error: {}", f.reason));
            })?;
        let config = self.config(start, container, &image, place).await.map_err(|error| {
            let message = format!("{error:#}");
            agent.event(&self.pod, name, Warning, "Failed", format!("Error: {message}"));
            Failure { reason: "CreateContainerConfigError", message }
        })?;
        let log = config.log_path.clone();
        let id = agent.cri.create_container(place.sandbox, config, place.config.clone()).await.map_err(|error| {
            let message = error.message().to_owned();
            agent.event(&self.pod, name, Warning, "Failed", format!("Error: {message}"));
            Failure { reason: "CreateContainerError", message }
        })?;
        self.shared.note_container(agent, &id);
        agent.event(&self.pod, name, Normal, "Created", "Container created");
        agent.cri.start_container(&id).await.map_err(|error| {
            let message = error.message().to_owned();
            agent.event(&self.pod, name, Warning, "Failed", format!("Error: {message}"));
            Failure { reason: "RunContainerError", message }
        })?;
        agent.event(&self.pod, name, Normal, "Started", "Container started");
        self.link_log(&container.name, &id, &Path::new(&place.config.log_directory).join(log));
        self.shared.clear_waiting(&container.name);
        self.post_start(container, &id, place.ips).await
    }

    async fn post_start(&self, container: &Container, id: &str, ips: &[String]) -> Result<(), Failure> {
        let hook = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
        if let Some(hook) = hook
            && let Err(error) = hooks::run(&self.agent, &self.pod, container, id, ips, hook).await
        {
            let message = format!("PostStartHook failed: {error}");
            self.agent.event(&self.pod, Some(&container.name), Warning, "FailedPostStartHook", &message);
            let killing = "FailedPostStartHook";
            super::stop::stop_now(&self.agent, &self.pod, &container.name, id, killing).await;
            return Err(Failure { reason: "PostStartHookError", message: error });
        }
        if container.startup_probe.is_none() {
            self.shared.set_started(id);
        }
        Ok(())
    }

    async fn config(
        &self,
        start: &Start,
        container: &Container,
        image: &cri::Image,
        place: &Place<'_>,
    ) -> anyhow::Result<cri::ContainerConfig> {
        let agent = &*self.agent;
        let env = env::build(agent, &self.sources, &self.pod, container, place.ips).await?;
        let lookup = |name: &str| env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let expand = |list: &Option<Vec<String>>| -> Vec<String> {
            list.iter().flatten().map(|text| env::expand(text, lookup)).collect()
        };
        let user = security::ImageUser::of(image);
        let security =
            security::of_container(&self.pod, container, &user, place.target.as_deref(), &agent.config.kubelet_dir)
                .map_err(anyhow::Error::msg)?;
        let log_path = Paths::container_log(&container.name, start.attempt);
        let log_dir = Path::new(&place.config.log_directory).join(&container.name);
        fs::create_dir_all(&log_dir).with_context(|| format!("making {}", log_dir.display()))?;
        let mut mounts = self.volume_mounts(container, &env).await?;
        mounts.extend(self.own_mounts(container, place.ips)?);
        let spec = cri::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        };
        Ok(cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt: start.attempt }),
            image: Some(spec),
            command: expand(&container.command),
            args: expand(&container.args),
            working_dir: container.working_dir.clone().unwrap_or_default(),
            envs: env.iter().map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() }).collect(),
            mounts,
            labels: labels::of_container(&self.pod, container, &agent.instance),
            annotations: labels::container_annotations(&self.pod, container, start.attempt),
            log_path,
            stdin: container.stdin == Some(true),
            stdin_once: container.stdin_once == Some(true),
            tty: container.tty == Some(true),
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(resources::for_runtime(
                    &self.pod,
                    container,
                    agent.memory_bytes(),
                    agent.layout.unified,
                )),
                security_context: Some(security),
            }),
            ..Default::default()
        })
    }

    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    async fn volume_mounts(&self, container: &Container, env: &env::Env) -> anyhow::Result<Vec<cri::Mount>> {
        let mut out = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let volume =
                self.volumes.place(&mount.name).with_context(|| format!("volume {} is not mounted", mount.name))?;
            let host_path = match sub_path(mount, env)? {
                Some(sub_path) => {
                    let target = self.agent.paths.subpath(self.uid(), &mount.name, &container.name, index);
                    let bound = target.clone();
                    let bind = move || mounts::bind_subpath(&volume, &sub_path, &bound);
                    Group::blocking(bind).await?.with_context(|| {
                        format!(
                            "failed to prepare subPath for volumeMount \"{}\" of container \"{}\"",
                            mount.name, container.name
                        )
                    })?;
                    target
                }
                None => volume,
            };
            if mount.recursive_read_only.as_deref() == Some("Enabled") {
                anyhow::bail!("volume \"{}\": recursive read-only mounts are not supported by the runtime", mount.name);
            }
            let propagation = match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
                Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
                _ => cri::MountPropagation::PropagationPrivate,
            };
            out.push(cri::Mount {
                container_path: absolute(&mount.mount_path),
                host_path: host_path.to_string_lossy().into_owned(),
                readonly: mount.read_only == Some(true),
                propagation: propagation as i32,
                ..Default::default()
            });
        }
        Ok(out)
    }

    /// /etc/hosts and the file for last words, unless the container mounts something of its own there.
    fn own_mounts(&self, container: &Container, ips: &[String]) -> anyhow::Result<Vec<cri::Mount>> {
        let taken =
            |path: &str| container.volume_mounts.iter().flatten().any(|m| m.mount_path.trim_end_matches('/') == path);
        let mut out = Vec::new();
        let paths = &self.agent.paths;
        if !taken("/etc/hosts") {
            let file = paths.hosts_file(self.uid());
            let host_network = self.pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
            let host_file = host_network.then(|| fs::read_to_string("/etc/hosts").unwrap_or_default());
            let text = hosts::file(&self.agent.config, &self.pod, ips, host_file.as_deref());
            // In place, not replaced: running containers have this very file mounted.
            fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?;
            out.push(bind("/etc/hosts", &file));
        }
        let path = container.termination_message_path.as_deref().unwrap_or(labels::DEFAULT_MESSAGE_PATH);
        if !taken(path) {
            let dir = paths.container(self.uid(), &container.name);
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            let file = dir.join(format!("{:08x}", rand::random::<u32>()));
            fs::write(&file, "").with_context(|| format!("writing {}", file.display()))?;
            // Whatever user the container runs as.
            fs::set_permissions(&file, fs::Permissions::from_mode(0o666))?;
            out.push(bind(&absolute(path), &file));
        }
        Ok(out)
    }

    /// The link by which log collectors find the pod of a log.
    fn link_log(&self, container: &str, id: &str, log: &Path) {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let (namespace, name) = (text(&self.pod.metadata.namespace), text(&self.pod.metadata.name));
        let link = self.agent.paths.container_link(&namespace, &name, container, id);
        let _ = fs::create_dir_all(self.agent.paths.container_links());
        if let Err(error) = std::os::unix::fs::symlink(log, &link) {
            tracing::debug!("linking {}: {error}", link.display());
        }
    }
}

fn bind(container_path: &str, host_path: &Path) -> cri::Mount {
    cri::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Default::default()
    }
}

/// Mount paths may be relative to the root.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { PathBuf::from("/").join(path).to_string_lossy().into_owned() }
}

fn sub_path(mount: &VolumeMount, env: &env::Env) -> anyhow::Result<Option<String>> {
    let set = |t: &Option<String>| t.clone().filter(|t| !t.is_empty());
    if let Some(expression) = set(&mount.sub_path_expr) {
        let lookup = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        // A path with holes would be another directory than the user means; no variable holds a NUL.
        let text = env::expand(&expression, |name| Some(lookup(name).unwrap_or_else(|| "\0".into())));
        if text.contains('\0') {
            anyhow::bail!("missing value for a variable of subPathExpr {expression:?}");
        }
        return Ok(Some(text));
    }
    Ok(set(&mount.sub_path))
}
