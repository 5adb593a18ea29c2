//! Security contexts of pods and containers.

use super::Context;
use crate::server::kinds::rules;
use crate::server::kinds::view::View;
use std::collections::BTreeSet;

const MAX_ID: i64 = u32::MAX as i64;
const SYSCTL_MAX_BYTES: usize = 253;
const PROFILE_MAX_BYTES: usize = 4095;

/// `securityContext` of the pod spec, and what it says together with the rest of the spec.
pub(super) fn pod(spec: &View<'_>) {
    let context = spec.get("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(&context.get(field));
    }
    context.get("supplementalGroups").items().for_each(|group| id(&group));
    let share = spec.get("shareProcessNamespace");
    if share.is_true() && spec.get("hostPID").is_true() {
        share
            .named(context.path().child("shareProcessNamespace"))
            .invalid("ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(&context.get("sysctls"), spec);
    context.get("fsGroupChangePolicy").one_of_if_set(&["Always", "OnRootMismatch"]);
    seccomp(&context.get("seccompProfile"));
    app_armor(&context.get("appArmorProfile"));
    context.get("supplementalGroupsPolicy").one_of_if_set(&["Merge", "Strict"]);
    context.get("seLinuxChangePolicy").one_of_if_set(&["MountOption", "Recursive"]);
}

/// `securityContext` of a container.
pub(super) fn container(security: &View<'_>, context: &Context<'_>) {
    if !security.is_set() {
        return;
    }
    id(&security.get("runAsUser"));
    id(&security.get("runAsGroup"));
    let proc_mount = security.get("procMount");
    proc_mount.one_of_if_set(&["Default", "Unmasked"]);
    if context.host_users && proc_mount.str() == "Unmasked" {
        proc_mount.invalid("`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(&security.get("seccompProfile"));
    if security.get("allowPrivilegeEscalation").value() == false {
        if security.get("privileged").is_true() {
            security.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = security.at(&["capabilities", "add"]);
        if added.items().any(|capability| capability.str() == "CAP_SYS_ADMIN") {
            security.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    app_armor(&security.get("appArmorProfile"));
}

fn id(at: &View<'_>) {
    if at.is_set() {
        at.in_range(0, MAX_ID);
    }
}

fn seccomp(profile: &View<'_>) {
    if !profile.is_set() {
        return;
    }
    let (kind, file) = (profile.get("type"), profile.get("localhostProfile"));
    if kind.is_empty() {
        kind.required("type is required when seccompProfile is set");
    } else {
        kind.one_of(&["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    match (kind.str(), file.is_set()) {
        ("Localhost", true) => rules::descending_path(&file),
        ("Localhost", false) => file.required("must be set when seccomp type is Localhost"),
        (_, true) => file.invalid_value(profile.value().clone(), "can only be set when seccomp type is Localhost"),
        _ => {}
    }
}

fn app_armor(profile: &View<'_>) {
    if !profile.is_set() {
        return;
    }
    let (kind, name) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.str() {
        "Localhost" if name.is_empty() => {
            name.required("must be set when AppArmor type is Localhost");
        }
        "Localhost" if name.str().trim() != name.str() => name.invalid("must not be padded with whitespace"),
        "Localhost" if name.len() > PROFILE_MAX_BYTES => name.too_long(PROFILE_MAX_BYTES),
        "Localhost" => {}
        "RuntimeDefault" | "Unconfined" if name.is_set() => {
            name.invalid("can only be set when AppArmor type is Localhost");
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => kind.required("type is required when appArmorProfile is set"),
        _ => kind.not_supported(&["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

/// `[a-z0-9]([-_a-z0-9]*[a-z0-9])?`, joined by dots or slashes.
fn is_sysctl(name: &str) -> bool {
    let ends = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= SYSCTL_MAX_BYTES
        && name.split(['.', '/']).all(|segment| {
            let b = segment.as_bytes();
            let inner = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
            ends(b.first()) && ends(b.last()) && b.iter().all(inner)
        })
}

fn sysctls(sysctls: &View<'_>, spec: &View<'_>) {
    let mut seen = BTreeSet::new();
    for name in sysctls.items().map(|s| s.get("name")) {
        if !name.require() {
            continue;
        }
        if !is_sysctl(name.str()) {
            name.invalid(format!(
                "must have at most {SYSCTL_MAX_BYTES} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            ));
        } else if !seen.insert(name.str()) {
            name.duplicate();
        }
        let dotted = name.str().replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| dotted.starts_with(p));
        if dotted.starts_with("net.") && spec.get("hostNetwork").is_true() {
            name.invalid("may not be specified when 'hostNetwork' is true");
        } else if ipc && spec.get("hostIPC").is_true() {
            name.invalid("may not be specified when 'hostIPC' is true");
        }
    }
}
