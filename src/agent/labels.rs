//! What sandboxes and containers carry, so that the next kedge (and `crictl`) knows whose they are: upstream's names.

use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::HashMap;

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Which agent made it: several may share one foreign runtime. Its value is the cgroup root, unique under a kernel.
pub const INSTANCE: &str = "kedge.io/instance";

pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Longest value of a label.
const LABEL_BYTES_MAX: usize = 63;

/// The instance label's value of a cgroup root.
pub fn instance(cgroup_root: &str) -> String {
    let text: String =
        cgroup_root.trim_matches('/').chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    text.chars().take(LABEL_BYTES_MAX).collect()
}

fn of_pod(pod: &Pod, instance: &str) -> HashMap<String, String> {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    HashMap::from([
        (POD_NAME.into(), text(&pod.metadata.name)),
        (POD_NAMESPACE.into(), text(&pod.metadata.namespace)),
        (POD_UID.into(), text(&pod.metadata.uid)),
        (INSTANCE.into(), instance.to_owned()),
    ])
}

/// A sandbox's labels: the pod's own and ours.
pub fn of_sandbox(pod: &Pod, instance: &str) -> HashMap<String, String> {
    let own = pod.metadata.labels.iter().flatten().map(|(k, v)| (k.clone(), v.clone()));
    own.chain(of_pod(pod, instance)).collect()
}

pub fn of_container(pod: &Pod, container: &Container, instance: &str) -> HashMap<String, String> {
    let mut labels = of_pod(pod, instance);
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

/// A container's annotations: what a later kedge needs when the pod's object has changed or is gone.
pub fn container_annotations(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let spec = pod.spec.as_ref();
    let grace = spec.and_then(|s| s.termination_grace_period_seconds).unwrap_or(30);
    let path = container.termination_message_path.clone().unwrap_or_else(|| DEFAULT_MESSAGE_PATH.into());
    let policy = container.termination_message_policy.clone().unwrap_or_else(|| "File".into());
    HashMap::from([
        (HASH.into(), hash(container)),
        (RESTART_COUNT.into(), attempt.to_string()),
        (MESSAGE_PATH.into(), path),
        (MESSAGE_POLICY.into(), policy),
        (GRACE_PERIOD.into(), grace.to_string()),
    ])
}

/// Where a container leaves its last words unless it says otherwise.
pub const DEFAULT_MESSAGE_PATH: &str = "/dev/termination-log";

/// Changes when a running container must be replaced: its name or image (nothing else of a container may change).
pub fn hash(container: &Container) -> String {
    // FNV-1a: stable across versions of kedge, which a std hasher does not promise.
    let text = [container.name.as_str(), container.image.as_deref().unwrap_or_default()].join("\0");
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_follows_name_and_image_only() {
        let c = |name: &str, image: &str, command: Option<Vec<String>>| Container {
            name: name.into(),
            image: Some(image.into()),
            command,
            ..Default::default()
        };
        let base = hash(&c("a", "i:1", None));
        assert_eq!(base, hash(&c("a", "i:1", Some(vec!["x".into()]))));
        assert_ne!(base, hash(&c("a", "i:2", None)));
        assert_ne!(base, hash(&c("b", "i:1", None)));
    }

    #[test]
    fn instances() {
        for (root, wanted) in [("/kubepods", "kubepods"), ("/a/b.c", "a-b-c")] {
            assert_eq!(instance(root), wanted);
        }
    }
}
