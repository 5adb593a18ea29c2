//! What to do next with a pod: pure, from its spec, what the runtime has and what is remembered (upstream's
//! `computePodActions`).

use super::backoff::Backoff;
use crate::agent::labels;
use crate::agent::observed::{self, Observed, State};
use crate::agent::resources::is_sidecar;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};
use std::collections::{HashMap, HashSet};

/// What is remembered beside the runtime's state.
#[derive(Default)]
pub struct Memory {
    /// Restart back-off by container name.
    pub backoff: HashMap<String, Backoff>,
    /// Ids of containers whose liveness or startup probe failed for good, with the probe's name.
    pub failed_probes: HashMap<String, &'static str>,
    /// Ids of running containers that count as started (post-start hook done, startup probe passed).
    pub started: HashSet<String>,
}

/// What to do with the sandbox before anything starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SandboxStep {
    Keep,
    Create {
        attempt: u32,
    },
    /// It died: stop what is left, then make another.
    Replace {
        attempt: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Init,
    Sidecar,
    Main,
    Ephemeral,
}

/// A container to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    pub name: String,
    pub kind: Kind,
    pub attempt: u32,
}

/// A running container to stop (it is started again by the next plan).
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    pub id: String,
    pub name: String,
    pub message: String,
    /// Name of the probe that failed, whose own grace period goes first.
    pub probe: Option<&'static str>,
}

#[derive(Debug, PartialEq)]
pub struct Plan {
    pub sandbox: SandboxStep,
    pub start: Vec<Start>,
    pub stop: Vec<Stop>,
    /// Containers that wait in CrashLoopBackOff, with the back-off's length in seconds.
    pub crash_loops: Vec<(String, u64)>,
    /// When the first of them may start.
    pub wake: Option<Timestamp>,
    /// Nothing runs that should, and nothing will: the pod has succeeded or failed.
    pub finished: bool,
}

impl Plan {
    fn new(sandbox: SandboxStep) -> Self {
        Plan { sandbox, start: Vec::new(), stop: Vec::new(), crash_loops: Vec::new(), wake: None, finished: false }
    }
}

/// A pod's restart policy.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether an ended container is to be started again: its own rules and policy (KEP-5307) before the pod's. Init
/// containers are restarted until they succeed.
pub fn restarts(pod: &Pod, container: &Container, kind: Kind, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        let matches = if codes.operator == "NotIn" { !listed } else { listed };
        if matches && rule.action.starts_with("Restart") {
            return true;
        }
    }
    let policy = container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod));
    match (kind, policy) {
        (Kind::Ephemeral, _) | (_, "Never") => false,
        (Kind::Init, _) => exit_code != 0,
        (_, "OnFailure") => exit_code != 0,
        _ => true,
    }
}

/// An ephemeral container as any other: the fields it has in common.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        args: ephemeral.args.clone(),
        command: ephemeral.command.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        name: ephemeral.name.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        tty: ephemeral.tty,
        volume_mounts: ephemeral.volume_mounts.clone(),
        working_dir: ephemeral.working_dir.clone(),
        ..Default::default()
    }
}

/// Every container of a pod with its kind, in the order in which they start.
pub fn containers(pod: &Pod) -> Vec<(Kind, Container)> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|e| (Kind::Ephemeral, as_container(e)));
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|c| (if is_sidecar(c) { Kind::Sidecar } else { Kind::Init }, c.clone()));
    ephemeral.chain(init).chain(spec.containers.iter().map(|c| (Kind::Main, c.clone()))).collect()
}

/// One look: the next steps.
pub fn plan(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let Some(spec) = &pod.spec else { return Plan::new(SandboxStep::Keep) };
    let host_network = spec.host_network == Some(true);
    let sandbox = match observed.sandbox() {
        None => SandboxStep::Create { attempt: 0 },
        Some(s) if !s.ready || (s.ips.is_empty() && !host_network) => SandboxStep::Replace { attempt: s.attempt + 1 },
        Some(_) => SandboxStep::Keep,
    };
    let mut out = Plan::new(sandbox);
    let look =
        Look { pod, observed, memory, now, current: observed.sandbox().filter(|_| sandbox == SandboxStep::Keep) };
    if sandbox != SandboxStep::Keep && look.nothing_restarts() {
        out.sandbox = SandboxStep::Keep;
        out.finished = true;
        return out;
    }
    let all = containers(pod);
    if look.current.is_some() {
        for (_, container) in all.iter().filter(|(kind, _)| *kind == Kind::Ephemeral) {
            if observed.newest(&container.name).is_none() {
                out.start.push(Start { name: container.name.clone(), kind: Kind::Ephemeral, attempt: 0 });
            }
        }
    }
    let initialized = look.initialized(&all);
    let mut init_failed = false;
    let mut blocked = false;
    for (kind, container) in all.iter().filter(|(kind, _)| matches!(kind, Kind::Init | Kind::Sidecar)) {
        if blocked || (initialized && *kind == Kind::Init) {
            continue;
        }
        match look.init_step(&mut out, *kind, container) {
            InitStep::Done => {}
            InitStep::Wait => blocked = !initialized,
            InitStep::Failed => {
                init_failed = true;
                blocked = true;
            }
        }
    }
    if init_failed {
        out.start.clear();
        out.finished = true;
        return out;
    }
    if blocked {
        return out;
    }
    let mut alive = false;
    for (_, container) in all.iter().filter(|(kind, _)| *kind == Kind::Main) {
        alive |= look.main_step(&mut out, container);
    }
    out.finished = !alive;
    if out.finished {
        out.start.clear();
    }
    out
}

enum InitStep {
    Done,
    Wait,
    Failed,
}

struct Look<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    memory: &'a Memory,
    now: Timestamp,
    /// The sandbox that containers start in; None: it has to be made first.
    current: Option<&'a observed::Sandbox>,
}

impl Look<'_> {
    /// The container of a name in the current sandbox. Those of earlier sandboxes count only for policies.
    fn current(&self, name: &str) -> Option<&observed::Container> {
        let current = self.current?;
        self.observed.newest(name).filter(|c| c.sandbox == current.id)
    }

    fn attempt(&self, name: &str) -> u32 {
        if let Some(container) = self.observed.newest(name) {
            return container.attempt + 1;
        }
        // Its containers are gone (collected, or a new machine under the same name): the API still knows the count.
        let status = self.pod.status.as_ref();
        let statuses = status.into_iter().flat_map(|s| {
            let lists = [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses];
            lists.into_iter().flatten().flatten()
        });
        let known = statuses.into_iter().find(|s| s.name == name && s.container_id.is_some());
        known.map_or(0, |s| s.restart_count.max(0) as u32 + 1)
    }

    /// Without a sandbox: does every container end its story with what it did in an earlier one? A pod that never
    /// restarts fails when its sandbox dies.
    fn nothing_restarts(&self) -> bool {
        let main: Vec<_> = self.pod.spec.iter().flat_map(|s| &s.containers).collect();
        if self.observed.containers.is_empty() {
            return false;
        }
        let any_init_pending = self.pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).any(|c| {
            !is_sidecar(c) && self.observed.newest(&c.name).is_none_or(|seen| seen.exit_code != 0 || !seen.is_exited())
        });
        main.iter().all(|c| match self.observed.newest(&c.name) {
            Some(seen) if seen.is_exited() || seen.state == State::Unknown => {
                !restarts(self.pod, c, Kind::Main, seen.exit_code)
            }
            Some(_) => false,
            // Never started; a pod that never restarts will not start it in a second sandbox.
            None => restart_policy(self.pod) == "Never" && any_init_pending,
        })
    }

    /// Some main container was started in this sandbox: its init containers are behind it.
    fn initialized(&self, all: &[(Kind, Container)]) -> bool {
        all.iter().any(|(kind, c)| *kind == Kind::Main && self.current(&c.name).is_some())
    }

    fn init_step(&self, out: &mut Plan, kind: Kind, container: &Container) -> InitStep {
        let Some(seen) = self.current(&container.name) else {
            self.start(out, kind, &container.name);
            return InitStep::Wait;
        };
        match seen.state {
            State::Running if kind == Kind::Sidecar => {
                if self.must_stop(out, container, seen) || !self.memory.started.contains(&seen.id) {
                    InitStep::Wait
                } else {
                    InitStep::Done
                }
            }
            State::Running => InitStep::Wait,
            State::Exited if kind == Kind::Init && seen.exit_code == 0 => InitStep::Done,
            State::Exited if !restarts(self.pod, container, kind, seen.exit_code) => InitStep::Failed,
            State::Exited => {
                self.restart(out, kind, seen);
                InitStep::Wait
            }
            State::Created | State::Unknown => {
                self.start(out, kind, &container.name);
                InitStep::Wait
            }
        }
    }

    /// Whether the container lives on: runs, or will run again.
    fn main_step(&self, out: &mut Plan, container: &Container) -> bool {
        let Some(seen) = self.current(&container.name) else {
            // In an earlier sandbox it may have ended for good.
            let ended = self.observed.newest(&container.name).filter(|c| c.is_exited());
            if ended.is_some_and(|c| !restarts(self.pod, container, Kind::Main, c.exit_code)) {
                return false;
            }
            self.start(out, Kind::Main, &container.name);
            return true;
        };
        match seen.state {
            State::Running => {
                self.must_stop(out, container, seen);
                true
            }
            State::Exited if !restarts(self.pod, container, Kind::Main, seen.exit_code) => false,
            State::Exited => {
                self.restart(out, Kind::Main, seen);
                true
            }
            State::Created | State::Unknown => {
                self.start(out, Kind::Main, &container.name);
                true
            }
        }
    }

    /// A running container with another image than its spec, or with a failed probe.
    fn must_stop(&self, out: &mut Plan, container: &Container, seen: &observed::Container) -> bool {
        let name = &container.name;
        let (message, probe) = if !seen.hash.is_empty() && seen.hash != labels::hash(container) {
            (format!("Container {name} definition changed"), None)
        } else if let Some(probe) = self.memory.failed_probes.get(&seen.id) {
            (format!("Container {name} failed {probe} probe"), Some(*probe))
        } else {
            return false;
        };
        let message = format!("{message}, will be restarted");
        out.stop.push(Stop { id: seen.id.clone(), name: name.clone(), message, probe });
        true
    }

    fn start(&self, out: &mut Plan, kind: Kind, name: &str) {
        out.start.push(Start { name: name.to_owned(), kind, attempt: self.attempt(name) });
    }

    /// Start an ended container again, unless its back-off still runs.
    fn restart(&self, out: &mut Plan, kind: Kind, seen: &observed::Container) {
        let finished = seen.finished_at().unwrap_or(self.now);
        let waiting = self.memory.backoff.get(&seen.name).and_then(|b| b.until(finished, self.now));
        match waiting {
            Some((until, seconds)) => {
                out.crash_loops.push((seen.name.clone(), seconds));
                out.wake = Some(out.wake.map_or(until, |w| w.min(until)));
            }
            None => self.start(out, kind, &seen.name),
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
