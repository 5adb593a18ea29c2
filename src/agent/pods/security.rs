//! Security contexts as the runtime wants them; the container's own settings go before the pod's.

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile};
use std::path::Path;

/// Paths in /proc and /sys that a container must not see (upstream's defaults).
const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// Paths that it must not write.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn pod_context(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec.as_ref()?.security_context.as_ref()
}

/// Which namespaces a pod shares. `target`: the container whose processes an ephemeral container joins.
pub fn namespaces(pod: &Pod, target: Option<&str>) -> cri::NamespaceOption {
    let spec = pod.spec.as_ref();
    let on = |f: fn(&k8s_openapi::api::core::v1::PodSpec) -> Option<bool>| spec.and_then(f) == Some(true);
    let node_or_pod = |node: bool| if node { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod } as i32;
    let pid = match target {
        Some(_) => cri::NamespaceMode::Target,
        None if on(|s| s.host_pid) => cri::NamespaceMode::Node,
        None if on(|s| s.share_process_namespace) => cri::NamespaceMode::Pod,
        None => cri::NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: node_or_pod(on(|s| s.host_network)),
        ipc: node_or_pod(on(|s| s.host_ipc)),
        pid: pid as i32,
        target_id: target.unwrap_or_default().to_owned(),
        userns_options: None,
    }
}

/// Of the sandbox.
pub fn of_sandbox(pod: &Pod, kubelet_dir: &Path) -> cri::LinuxSandboxSecurityContext {
    let context = pod_context(pod);
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, None)),
        run_as_user: context.and_then(|c| c.run_as_user).map(int),
        run_as_group: context.and_then(|c| c.run_as_group).map(int),
        supplemental_groups: groups(context),
        supplemental_groups_policy: groups_policy(context),
        privileged: has_privileged(pod),
        selinux_options: context.and_then(|c| c.se_linux_options.as_ref()).map(selinux),
        // The pause program needs three system calls; upstream gives it the runtime's default profile.
        seccomp: Some(seccomp(context.and_then(|c| c.seccomp_profile.as_ref()), true, kubelet_dir)),
        ..Default::default()
    }
}

fn has_privileged(pod: &Pod) -> bool {
    super::plan::containers(pod).iter().any(|(_, c)| is_privileged(c))
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|c| c.privileged) == Some(true)
}

/// Of a container. `user` is what the image says, for containers that do not.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    user: &ImageUser,
    target: Option<&str>,
    kubelet_dir: &Path,
) -> Result<cri::LinuxContainerSecurityContext, String> {
    let of_pod = pod_context(pod);
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = is_privileged(container);
    let wanted_user = own.run_as_user.or(of_pod.and_then(|c| c.run_as_user));
    let non_root = own.run_as_non_root.or(of_pod.and_then(|c| c.run_as_non_root)) == Some(true);
    if non_root {
        check_non_root(pod, container, wanted_user, user)?;
    }
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let profile = own.seccomp_profile.as_ref().or(of_pod.and_then(|c| c.seccomp_profile.as_ref()));
    let app_armor = own.app_armor_profile.as_ref().or(of_pod.and_then(|c| c.app_armor_profile.as_ref()));
    let selinux_options = own.se_linux_options.as_ref().or(of_pod.and_then(|c| c.se_linux_options.as_ref()));
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces(pod, target)),
        selinux_options: selinux_options.map(selinux),
        run_as_user: wanted_user.or(user.uid).map(int),
        run_as_username: if wanted_user.is_none() && user.uid.is_none() { user.name.clone() } else { String::new() },
        run_as_group: own.run_as_group.or(of_pod.and_then(|c| c.run_as_group)).map(int),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(of_pod),
        supplemental_groups_policy: groups_policy(of_pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(profile.filter(|_| !privileged), false, kubelet_dir)),
        apparmor: app_armor.map(apparmor),
        ..Default::default()
    })
}

/// The user of an image's configuration.
#[derive(Clone, Debug, Default)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

impl ImageUser {
    pub fn of(image: &cri::Image) -> Self {
        ImageUser { uid: image.uid.as_ref().map(|u| u.value), name: image.username.clone() }
    }
}

/// Upstream's refusals.
fn check_non_root(pod: &Pod, container: &Container, wanted: Option<i64>, image: &ImageUser) -> Result<(), String> {
    let about = format!("(pod: \"{}\", container: {})", crate::agent::context::pod_full_name(pod), container.name);
    match (wanted, image) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {about}")),
        (Some(_), _) => Ok(()),
        (None, ImageUser { uid: Some(0), .. }) => {
            Err(format!("container has runAsNonRoot and image will run as root {about}"))
        }
        (None, ImageUser { uid: None, name }) if !name.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {about}"
        )),
        (None, ImageUser { uid: None, .. }) => {
            Err(format!("container has runAsNonRoot and image will run as root {about}"))
        }
        _ => Ok(()),
    }
}

fn int(value: i64) -> cri::Int64Value {
    cri::Int64Value { value }
}

fn groups(context: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(context) = context else { return Vec::new() };
    context.supplemental_groups.iter().flatten().copied().chain(context.fs_group).collect()
}

fn groups_policy(context: Option<&PodSecurityContext>) -> i32 {
    let strict = context.and_then(|c| c.supplemental_groups_policy.as_deref()) == Some("Strict");
    if strict { cri::SupplementalGroupsPolicy::Strict as i32 } else { cri::SupplementalGroupsPolicy::Merge as i32 }
}

fn seccomp(profile: Option<&SeccompProfile>, default_on: bool, kubelet_dir: &Path) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, path) = match profile.map(|p| p.type_.as_str()) {
        Some("RuntimeDefault") => (ProfileType::RuntimeDefault, String::new()),
        Some("Localhost") => {
            let file = profile.and_then(|p| p.localhost_profile.clone()).unwrap_or_default();
            (ProfileType::Localhost, kubelet_dir.join("seccomp").join(file).to_string_lossy().into_owned())
        }
        None if default_on => (ProfileType::RuntimeDefault, String::new()),
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref: path }
}

fn apparmor(profile: &AppArmorProfile) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let kind = match profile.type_.as_str() {
        "RuntimeDefault" => ProfileType::RuntimeDefault,
        "Localhost" => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = profile.localhost_profile.clone().unwrap_or_default();
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn selinux(options: &SELinuxOptions) -> cri::SeLinuxOption {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    cri::SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn context(
        pod: Value,
        own: Value,
        uid: Option<i64>,
        name: &str,
    ) -> Result<cri::LinuxContainerSecurityContext, String> {
        let spec = json!({"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]});
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u"});
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        of_container(&pod, &container, &ImageUser { uid, name: name.into() }, None, Path::new("/k"))
    }

    #[test]
    fn non_root() {
        let non_root = json!({"runAsNonRoot": true});
        let cases = [
            (json!({}), json!({}), None, "", true),
            (non_root.clone(), json!({}), Some(1000), "", true),
            (non_root.clone(), json!({}), Some(0), "", false),
            (non_root.clone(), json!({}), None, "", false),
            (non_root.clone(), json!({}), None, "app", false),
            (non_root.clone(), json!({"runAsUser": 5}), Some(0), "", true),
            (non_root.clone(), json!({"runAsUser": 0}), Some(7), "", false),
            (non_root, json!({"runAsNonRoot": false}), Some(0), "", true),
        ];
        for (pod, own, uid, name, ok) in cases {
            assert_eq!(context(pod.clone(), own.clone(), uid, name).is_ok(), ok, "{pod} {own} {uid:?} {name}");
        }
        let error = context(json!({"runAsNonRoot": true}), json!({}), Some(0), "").unwrap_err();
        assert_eq!(error, "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)");
    }

    #[test]
    fn own_settings_before_the_pods() {
        let pod = json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4],
            "seccompProfile": {"type": "RuntimeDefault"}});
        let got = context(pod.clone(), json!({"runAsUser": 9, "allowPrivilegeEscalation": false}), None, "").unwrap();
        assert_eq!(got.run_as_user.unwrap().value, 9);
        assert_eq!(got.run_as_group.unwrap().value, 2);
        assert_eq!(got.supplemental_groups, [4, 3]);
        assert!(got.no_new_privs && !got.masked_paths.is_empty());
        assert_eq!(got.seccomp.unwrap().profile_type, 0);
        let privileged = context(pod, json!({"privileged": true}), None, "").unwrap();
        assert!(privileged.privileged && privileged.masked_paths.is_empty());
        assert_eq!(privileged.seccomp.unwrap().profile_type, 1);
        let named = context(json!({}), json!({}), None, "app").unwrap();
        assert_eq!(named.run_as_username, "app");
    }
}
