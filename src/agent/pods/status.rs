//! A pod's status from what the runtime has: pure (upstream's `generateAPIPodStatus` and its helpers).

use super::plan::{Kind, containers, restart_policy};
use crate::agent::images::pull::Failure;
use crate::agent::observed::{Container as Seen, Observed, State};
use crate::agent::qos::Qos;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::{HashMap, HashSet};

/// How a pod that was ended by us came to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub reason: String,
    pub message: String,
}

/// Everything that the status is made of.
pub struct Facts<'a> {
    pub pod: &'a Pod,
    /// The status that the API has.
    pub old: &'a PodStatus,
    pub observed: &'a Observed,
    pub waiting: &'a HashMap<String, Failure>,
    /// Ids of containers that have started, and of those whose readiness probe says yes.
    pub started: &'a HashSet<String>,
    pub ready: &'a HashSet<String>,
    /// Container id → last words.
    pub messages: &'a HashMap<String, String>,
    pub node_ip: &'a str,
    /// `containerd`
    pub runtime: &'a str,
    /// Nothing runs any more, and nothing will.
    pub ended: bool,
    /// We failed the pod, whatever its containers say.
    pub verdict: Option<&'a Verdict>,
    pub now: Timestamp,
}

/// The status as it should be in the API now.
pub fn status(facts: &Facts<'_>) -> PodStatus {
    let all = containers(facts.pod);
    let of_kind = |kinds: &[Kind]| -> Vec<ContainerStatus> {
        all.iter().filter(|(kind, _)| kinds.contains(kind)).map(|(kind, c)| facts.container(*kind, c)).collect()
    };
    let init = of_kind(&[Kind::Init, Kind::Sidecar]);
    let main = of_kind(&[Kind::Main]);
    let ephemeral = of_kind(&[Kind::Ephemeral]);
    let terminal = matches!(facts.old.phase.as_deref(), Some("Succeeded" | "Failed"));
    let phase = if facts.verdict.is_some() {
        "Failed"
    } else if terminal {
        // A pod never comes back from there.
        facts.old.phase.as_deref().unwrap_or_default()
    } else {
        phase(facts.pod, &init, &main, facts.ended)
    };
    let sandbox = facts.observed.sandbox();
    let host_network = facts.pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
    let ips: Vec<String> = match sandbox {
        Some(s) if host_network && s.ready => vec![facts.node_ip.to_owned()],
        Some(s) if !s.ips.is_empty() => s.ips.clone(),
        // Known addresses stay in the status of a pod that has ended.
        _ if facts.ended || terminal => facts.old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect(),
        _ => Vec::new(),
    };
    let conditions =
        facts.conditions(phase, &init, &main, sandbox.is_some_and(|s| s.ready && (host_network || !s.ips.is_empty())));
    let nonempty = |list: Vec<ContainerStatus>| Some(list).filter(|l| !l.is_empty());
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: facts.verdict.map(|v| v.reason.clone()).or_else(|| facts.old.reason.clone().filter(|_| terminal)),
        message: facts.verdict.map(|v| v.message.clone()).or_else(|| facts.old.message.clone().filter(|_| terminal)),
        host_ip: Some(facts.node_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: facts.node_ip.to_owned() }]),
        pod_ip: ips.first().cloned(),
        pod_ips: Some(ips.into_iter().map(|ip| PodIP { ip }).collect::<Vec<_>>()).filter(|l| !l.is_empty()),
        start_time: facts.old.start_time.clone().or(Some(Time(whole_seconds(facts.now)))),
        init_container_statuses: nonempty(init),
        container_statuses: nonempty(main),
        ephemeral_container_statuses: nonempty(ephemeral),
        qos_class: Some(Qos::of(facts.pod).name().to_owned()),
        observed_generation: facts.pod.metadata.generation,
        conditions: Some(conditions),
        ..facts.old.clone()
    }
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Upstream's phase rules.
pub fn phase(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], ended: bool) -> &'static str {
    let mut pending_init = 0;
    let mut failed_init = 0;
    let kinds: HashMap<String, Kind> = containers(pod).into_iter().map(|(kind, c)| (c.name, kind)).collect();
    for status in init {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        if kinds.get(&status.name) == Some(&Kind::Sidecar) {
            // A sidecar's end says nothing about the pod.
            let waits = state.running.is_none() && state.terminated.is_none() && last.is_none();
            let starts = state.running.is_some() && status.started != Some(true);
            pending_init += i32::from(waits || starts);
        } else if let Some(terminated) = &state.terminated {
            failed_init += i32::from(terminated.exit_code != 0);
        } else if state.running.is_some() || last.is_none() {
            pending_init += 1;
        } else {
            failed_init += i32::from(last.is_some_and(|t| t.exit_code != 0));
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for status in main {
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            running += 1;
        } else if let Some(terminated) = &state.terminated {
            stopped += 1;
            succeeded += i32::from(terminated.exit_code == 0);
        } else if status.last_state.as_ref().is_some_and(|s| s.terminated.is_some()) {
            stopped += 1;
        } else {
            waiting += 1;
        }
    }
    let policy = restart_policy(pod);
    if failed_init > 0 && (policy == "Never" || ended) {
        return "Failed";
    }
    let initialized = running + stopped > 0;
    match () {
        () if ended && waiting > 0 && stopped == 0 => "Failed",
        () if pending_init > 0 && !initialized => "Pending",
        () if failed_init > 0 && !initialized => "Pending",
        () if waiting > 0 && !ended => "Pending",
        () if running > 0 => "Running",
        () if stopped > 0 && ended && waiting == 0 => {
            if stopped == succeeded {
                "Succeeded"
            } else {
                "Failed"
            }
        }
        () if ended => "Failed",
        () if stopped > 0 && policy == "Always" => "Running",
        () if stopped > 0 && stopped == succeeded => "Succeeded",
        () if stopped > 0 && policy == "Never" => "Failed",
        () if stopped > 0 => "Running",
        () => "Pending",
    }
}

impl Facts<'_> {
    /// One container's status.
    fn container(&self, kind: Kind, container: &Container) -> ContainerStatus {
        let name = &container.name;
        let old = self.old_status(name);
        let Some(seen) = self.observed.newest(name) else { return self.unseen(container, old) };
        let waits = self.waiting.get(name);
        let before = self.observed.before(seen).filter(|c| c.is_exited()).map(|c| self.terminated(c));
        let before = before.or_else(|| {
            let old_last = old.and_then(|o| o.last_state.as_ref()).and_then(|s| s.terminated.clone());
            old_last.filter(|_| seen.attempt > 0)
        });
        let (state, last) = match (&seen.state, waits) {
            (State::Running, _) => {
                let started_at = seen.started_at().map(Time);
                (ContainerState { running: Some(ContainerStateRunning { started_at }), ..Default::default() }, before)
            }
            (State::Exited, Some(why)) if !self.ended => (waiting(why), Some(self.terminated(seen))),
            (State::Exited, _) => {
                (ContainerState { terminated: Some(self.terminated(seen)), ..Default::default() }, before)
            }
            (_, Some(why)) => (waiting(why), before),
            (_, None) => (self.default_waiting(), before),
        };
        let running = seen.is_running();
        let started = running && self.started.contains(&seen.id);
        let ready = match kind {
            Kind::Init => seen.is_exited() && seen.exit_code == 0,
            Kind::Ephemeral => false,
            _ => started && (container.readiness_probe.is_none() || self.ready.contains(&seen.id)),
        };
        let container_id = format!("{}://{}", self.runtime, seen.id);
        ContainerStatus {
            name: name.clone(),
            image: if seen.image.is_empty() || seen.image.starts_with("sha256:") {
                container.image.clone().unwrap_or_default()
            } else {
                seen.image.clone()
            },
            image_id: seen.image_ref.clone(),
            container_id: Some(container_id),
            restart_count: seen.attempt as i32,
            ready,
            started: (kind != Kind::Ephemeral).then_some(started),
            state: Some(state),
            last_state: Some(ContainerState { terminated: last, ..Default::default() }),
            allocated_resources: container.resources.as_ref().and_then(|r| r.requests.clone()),
            resources: container.resources.clone().filter(|_| running),
            volume_mounts: mounts(container),
            user: seen.user.as_ref().filter(|_| running).map(|user| ContainerUser {
                linux: Some(LinuxContainerUser {
                    uid: user.uid,
                    gid: user.gid,
                    supplemental_groups: Some(user.supplemental_groups.clone()),
                }),
            }),
            ..Default::default()
        }
    }

    /// A container of which the runtime has nothing.
    fn unseen(&self, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
        let old_state = old.and_then(|o| o.state.as_ref());
        if let Some(old) = old.filter(|_| old_state.is_some_and(|s| s.terminated.is_some())) {
            return old.clone();
        }
        let lost = old_state.is_some_and(|s| s.running.is_some()).then(|| ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some("The container could not be located when the pod was terminated".into()),
            ..Default::default()
        });
        let last = lost.or_else(|| old.and_then(|o| o.last_state.as_ref()).and_then(|s| s.terminated.clone()));
        let state = match (self.ended, &last, self.waiting.get(&container.name)) {
            (true, Some(last), _) => ContainerState { terminated: Some(last.clone()), ..Default::default() },
            (_, _, Some(why)) => waiting(why),
            _ => self.default_waiting(),
        };
        ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            restart_count: old.map_or(0, |o| o.restart_count),
            started: Some(false),
            state: Some(state),
            last_state: Some(ContainerState { terminated: last, ..Default::default() }),
            volume_mounts: mounts(container),
            ..Default::default()
        }
    }

    fn old_status(&self, name: &str) -> Option<&ContainerStatus> {
        let lists =
            [&self.old.container_statuses, &self.old.init_container_statuses, &self.old.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten().find(|s| s.name == name)
    }

    /// Before anything is known of a container.
    fn default_waiting(&self) -> ContainerState {
        let has_init =
            self.pod.spec.as_ref().is_some_and(|s| s.init_containers.as_ref().is_some_and(|i| !i.is_empty()));
        let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
        let state = ContainerStateWaiting { reason: Some(reason.into()), message: None };
        ContainerState { waiting: Some(state), ..Default::default() }
    }

    fn terminated(&self, seen: &Seen) -> ContainerStateTerminated {
        let reason = match (seen.reason.as_str(), seen.exit_code) {
            ("", 0) => "Completed",
            ("", _) => "Error",
            (reason, _) => reason,
        };
        let said = self.messages.get(&seen.id).cloned().unwrap_or_default();
        let message = if said.is_empty() { seen.message.clone() } else { said };
        ContainerStateTerminated {
            exit_code: seen.exit_code,
            reason: Some(reason.to_owned()),
            message: Some(message).filter(|m| !m.is_empty()),
            started_at: seen.started_at().map(Time),
            finished_at: seen.finished_at().map(Time),
            container_id: Some(format!("{}://{}", self.runtime, seen.id)),
            signal: None,
        }
    }

    fn conditions(
        &self,
        phase: &str,
        init: &[ContainerStatus],
        main: &[ContainerStatus],
        sandbox: bool,
    ) -> Vec<PodCondition> {
        let kinds: HashMap<String, Kind> = containers(self.pod).into_iter().map(|(kind, c)| (c.name, kind)).collect();
        let incomplete: Vec<&str> = init
            .iter()
            .filter(|s| if kinds.get(&s.name) == Some(&Kind::Sidecar) { s.started != Some(true) } else { !s.ready })
            .map(|s| s.name.as_str())
            .collect();
        let sidecars = init.iter().filter(|s| kinds.get(&s.name) == Some(&Kind::Sidecar));
        let unready: Vec<&str> = main.iter().chain(sidecars).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
        let list = |names: &[&str]| format!("[{}]", names.join(" "));
        let initialized = match phase {
            "Succeeded" => (true, "PodCompleted", String::new()),
            _ if incomplete.is_empty() || main.iter().any(|s| s.started == Some(true)) => (true, "", String::new()),
            _ => {
                (false, "ContainersNotInitialized", format!("containers with incomplete status: {}", list(&incomplete)))
            }
        };
        let containers_ready = match phase {
            "Succeeded" => (false, "PodCompleted", String::new()),
            "Failed" => (false, "PodFailed", String::new()),
            _ if unready.is_empty() => (true, "", String::new()),
            _ => (false, "ContainersNotReady", format!("containers with unready status: {}", list(&unready))),
        };
        let ready = if containers_ready.0 { self.gates() } else { containers_ready.clone() };
        let scheduled = (true, "", String::new());
        let wanted = [
            ("PodReadyToStartContainers", (sandbox, "", String::new())),
            ("Initialized", initialized),
            ("Ready", ready),
            ("ContainersReady", containers_ready),
            ("PodScheduled", scheduled),
        ];
        let mut out: Vec<PodCondition> = self.old.conditions.clone().unwrap_or_default();
        for (kind, (on, reason, message)) in wanted {
            self.set_condition(&mut out, kind, on, reason, message);
        }
        out
    }

    /// Readiness gates: conditions that somebody else sets (KEP-580).
    fn gates(&self) -> (bool, &'static str, String) {
        let gates = self.pod.spec.as_ref().and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
        let problems: Vec<String> = gates
            .iter()
            .filter_map(|gate| {
                let kind = &gate.condition_type;
                let found = self.old.conditions.iter().flatten().find(|c| c.type_ == *kind);
                match found {
                    None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
                    Some(c) if c.status != "True" => {
                        Some(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", c.status))
                    }
                    Some(_) => None,
                }
            })
            .collect();
        if problems.is_empty() {
            return (true, "", String::new());
        }
        (false, "ReadinessGatesNotReady", problems.join(", "))
    }

    fn set_condition(&self, all: &mut Vec<PodCondition>, kind: &str, on: bool, reason: &str, message: String) {
        let status = if on { "True" } else { "False" };
        let old = all.iter().position(|c| c.type_ == kind);
        let same = old.is_some_and(|n| all[n].status == status);
        let since = old.filter(|_| same).and_then(|n| all[n].last_transition_time.clone());
        let condition = PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
            message: Some(message).filter(|m| !m.is_empty()),
            last_transition_time: since.or(Some(Time(whole_seconds(self.now)))),
            last_probe_time: None,
            observed_generation: self.pod.metadata.generation,
        };
        match old {
            Some(n) => all[n] = condition,
            None => all.push(condition),
        }
    }
}

fn waiting(why: &Failure) -> ContainerState {
    let message = Some(why.message.clone()).filter(|m| !m.is_empty());
    let waiting = ContainerStateWaiting { reason: Some(why.reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|m| !m.is_empty())?;
    let status = mounts.iter().map(|m| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only,
        recursive_read_only: (m.read_only == Some(true)).then(|| "Disabled".to_owned()),
        ..Default::default()
    });
    Some(status.collect())
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
