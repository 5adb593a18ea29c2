//! Containers of all three kinds: regular, init (with sidecars), ephemeral.

use super::{Context, env, handlers, resources, security};
use crate::server::kinds::names;
use crate::server::kinds::view::View;
use std::collections::BTreeSet;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const NOT_FOR_EPHEMERAL: [&str; 8] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

pub(super) fn all(spec: &View<'_>, context: &Context<'_>) {
    let (regular, init) = (spec.get("containers"), spec.get("initContainers"));
    let mut names = BTreeSet::new();
    regular_containers(&regular, context, &mut names);
    init_containers(&init, context, &mut names);
    ephemeral_containers(&spec.get("ephemeralContainers"), context, names);
    if spec.get("hostNetwork").is_true() {
        host_network_ports(&regular, context);
    }
}

fn regular_containers<'a>(containers: &View<'a>, context: &Context<'_>, names: &mut BTreeSet<&'a str>) {
    if containers.is_empty() {
        return containers.required("");
    }
    let mut ports = BTreeSet::new();
    for container in containers.items() {
        common(&container, context);
        if !names.insert(container.get("name").str()) {
            container.get("name").duplicate();
        }
        handlers::all(&container, context);
        restart_policy(&container);
        unique_host_ports(&container, &mut ports);
    }
}

/// KEP-5307: a container's own restart policy, and rules by exit code.
fn restart_policy(container: &View<'_>) {
    let (policy, rules) = (container.get("restartPolicy"), container.get("restartPolicyRules"));
    policy.one_of_if_set(&["Always", "Never", "OnFailure"]);
    if !rules.is_empty() && !policy.is_set() {
        policy.required("must specify restartPolicy when restart rules are used");
    }
}

fn init_containers<'a>(containers: &View<'a>, context: &Context<'_>, names: &mut BTreeSet<&'a str>) {
    for container in containers.items() {
        common(&container, context);
        restart_policy(&container);
        let name = container.get("name");
        if !name.is_empty() && !names.insert(name.str()) {
            name.duplicate();
        }
        // Init containers run one by one: only ports of one container can collide.
        unique_host_ports(&container, &mut BTreeSet::new());
        if container.get("restartPolicy").str() == "Always" {
            handlers::all(&container, context);
            continue;
        }
        for field in ["lifecycle"].iter().chain(&PROBES).map(|f| container.get(f)).filter(View::is_set) {
            field.forbidden("may not be set for init containers without restartPolicy=Always");
        }
    }
}

fn ephemeral_containers(containers: &View<'_>, context: &Context<'_>, others: BTreeSet<&str>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let mut names: BTreeSet<&str> = others.clone();
    for container in containers.items() {
        common(&container, context);
        let name = container.get("name");
        if !names.insert(name.str()) {
            name.duplicate();
        }
        let target = container.get("targetContainerName");
        if !target.is_empty() && !others.contains(target.str()) {
            target.not_found();
        }
        NOT_FOR_EPHEMERAL.iter().map(|f| container.get(f)).filter(|f| !f.is_empty()).for_each(|f| f.forbidden(WHY));
        for mount in container.get("volumeMounts").items() {
            let paths = [mount.get("subPath"), mount.get("subPathExpr")];
            paths.iter().filter(|path| !path.is_empty()).for_each(|path| path.forbidden(WHY));
        }
    }
}

/// What holds for every container.
fn common(container: &View<'_>, context: &Context<'_>) {
    let name = container.get("name");
    if name.require() {
        name.format(names::dns_label);
    }
    let image = container.get("image");
    // A template's image may still be filled in by someone; a Pod's may not be blank around the edges.
    if image.require() && context.is_pod && image.str().trim() != image.str() {
        image.invalid("must not have leading or trailing whitespace");
    }
    container.get("terminationMessagePolicy").require_one_of(&["File", "FallbackToLogsOnError"]);
    ports(&container.get("ports"));
    env::env(container);
    volume_mounts(container, context);
    volume_devices(container, context);
    container.get("imagePullPolicy").require_one_of(&["Always", "IfNotPresent", "Never"]);
    resources::container(&container.get("resources"), context);
    resize_policies(&container.get("resizePolicy"), context);
    security::container(&container.get("securityContext"), context);
}

fn ports(ports: &View<'_>) {
    let mut seen = BTreeSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if !name.is_empty() {
            name.formats(names::port_name);
            if !seen.insert(name.str()) {
                name.duplicate();
            }
        }
        let number = port.get("containerPort");
        if number.number() == 0 {
            number.required("")
        } else {
            number.port()
        }
        if port.get("hostPort").number() != 0 {
            port.get("hostPort").port();
        }
        port.get("protocol").require_one_of(PROTOCOLS);
    }
}

fn unique_host_ports(container: &View<'_>, seen: &mut BTreeSet<String>) {
    for port in container.get("ports").items().filter(|p| p.get("hostPort").number() != 0) {
        let number = port.get("hostPort");
        let key = format!("{}/{}/{}", port.get("protocol").str(), port.get("hostIP").str(), number.number());
        if seen.contains(&key) { number.duplicate_value(key) } else { _ = seen.insert(key) }
    }
}

fn host_network_ports(containers: &View<'_>, context: &Context<'_>) {
    for port in containers.items().flat_map(|c| c.get("ports").items()) {
        let (host, own) = (port.get("hostPort"), port.get("containerPort").number());
        if (context.is_pod || host.number() != 0) && host.number() != own {
            host.invalid_value(host.number(), "must match `containerPort` when `hostNetwork` is true");
        }
    }
}

fn volume_mounts(container: &View<'_>, context: &Context<'_>) {
    let (mounts, devices) = (container.get("volumeMounts"), container.get("volumeDevices"));
    let is_privileged = container.at(&["securityContext", "privileged"]).is_true();
    let mut points = BTreeSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        name.require();
        let volume = context.volumes.get(name.str());
        if volume.is_none() {
            name.named(name.path().clone()).not_found();
        }
        path.require();
        if !points.insert(path.str()) {
            path.invalid("must be unique");
        }
        if devices.items().any(|d| d.get("name").str() == name.str()) {
            name.invalid("must not already exist in volumeDevices");
        }
        if devices.items().any(|d| d.get("devicePath").str() == path.str()) {
            path.invalid("must not already exist as a path in volumeDevices");
        }
        sub_paths(&mount, &mounts);
        propagation(&mount, &mounts, is_privileged);
    }
}

// Upstream's paths of the following leave out the index.

fn sub_paths(mount: &View<'_>, mounts: &View<'_>) {
    let (path, expression) = (mount.get("subPath"), mount.get("subPathExpr"));
    if !path.is_empty() {
        crate::server::kinds::rules::descending_path(&path.named(mounts.path().child("subPath")));
    }
    if !expression.is_empty() {
        if !path.is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive");
        }
        crate::server::kinds::rules::descending_path(&expression.named(mounts.path().child("subPathExpr")));
    }
}

fn propagation(mount: &View<'_>, mounts: &View<'_>, is_privileged: bool) {
    let mode = mount.get("mountPropagation").named(mounts.path().child("mountPropagation"));
    mode.one_of_if_set(&["Bidirectional", "HostToContainer", "None"]);
    if mode.str() == "Bidirectional" && !is_privileged {
        mode.forbidden("Bidirectional mount propagation is available only to privileged containers");
    }
    let recursive = mount.get("recursiveReadOnly").named(mounts.path().child("recursiveReadOnly"));
    recursive.one_of_if_set(&["Disabled", "Enabled", "IfPossible"]);
    if matches!(recursive.str(), "Enabled" | "IfPossible") {
        if !mount.get("readOnly").is_true() {
            recursive.forbidden("may only be specified when readOnly is true");
        }
        if !matches!(mode.str(), "" | "None") {
            recursive.forbidden("may only be specified when mountPropagation is None or not specified");
        }
    }
}

fn volume_devices(container: &View<'_>, context: &Context<'_>) {
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if name.require() && !names.insert(name.str()) {
            name.invalid("must be unique");
        }
        match context.volumes.get(name.str()) {
            None => name.not_found(),
            Some(v) if v.get("persistentVolumeClaim").is_set() || v.get("ephemeral").is_set() => {}
            Some(_) => {
                name.invalid("can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
            }
        }
        if path.require() && path.str().split('/').any(|p| p == "..") {
            path.invalid("can not contain backsteps ('..')");
        } else if !paths.insert(path.str()) {
            path.invalid("must be unique");
        }
    }
}

fn resize_policies(policies: &View<'_>, context: &Context<'_>) {
    let mut seen = BTreeSet::new();
    for policy in policies.items() {
        let (resource, restart) = (policy.get("resourceName"), policy.get("restartPolicy"));
        let (resource, restart) = (resource.named(policies.path().clone()), restart.named(policies.path().clone()));
        if !seen.insert(resource.str()) {
            policy.duplicate_value(resource.str());
        }
        resource.require_one_of(&["cpu", "memory"]);
        restart.require_one_of(&["NotRequired", "RestartContainer"]);
        if context.restart_policy == "Never" && restart.str() != "NotRequired" {
            restart.invalid("must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}
