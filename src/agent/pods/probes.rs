//! Probes: one task per container and probe, from its start to its end (upstream's prober).

use super::shared::Shared;
use super::{probe_grpc, probe_http};
use crate::agent::context::Agent;
use crate::agent::observed::Container as Seen;
use crate::events::Warning;
use crate::task::Group;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Startup,
    Readiness,
    Liveness,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::Startup => "startup",
            Purpose::Readiness => "readiness",
            Purpose::Liveness => "liveness",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Purpose::Startup => "Startup",
            Purpose::Readiness => "Readiness",
            Purpose::Liveness => "Liveness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Purpose::Startup => container.startup_probe.as_ref(),
            Purpose::Readiness => container.readiness_probe.as_ref(),
            Purpose::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// Longest output that goes into an event.
const OUTPUT_BYTES_MAX: usize = 10 << 10;
/// A startup probe's success lets the others begin; they look this often.
const STARTED_LOOK: Duration = Duration::from_millis(200);

/// The running probes of one pod.
pub struct Probes {
    agent: Arc<Agent>,
    shared: Arc<Shared>,
    group: Group,
    /// Container id → its probes.
    running: HashMap<String, Group>,
}

impl Probes {
    pub fn new(agent: Arc<Agent>, shared: Arc<Shared>, group: Group) -> Self {
        Probes { agent, shared, group, running: HashMap::new() }
    }

    /// Probe exactly the containers that run.
    pub fn follow<'a>(&mut self, pod: &Arc<Pod>, ips: &[String], seen: impl Iterator<Item = &'a Seen>) {
        let containers = super::plan::containers(pod);
        let mut alive = Vec::new();
        for seen in seen {
            alive.push(seen.id.as_str());
            if self.running.contains_key(&seen.id) {
                continue;
            }
            let Some((_, container)) = containers.iter().find(|(_, c)| c.name == seen.name) else { continue };
            let group = self.group.child();
            for purpose in [Purpose::Startup, Purpose::Readiness, Purpose::Liveness] {
                if purpose.of(container).is_none() {
                    continue;
                }
                let worker = Worker {
                    agent: self.agent.clone(),
                    shared: self.shared.clone(),
                    pod: pod.clone(),
                    container: container.clone(),
                    ips: ips.to_vec(),
                    id: seen.id.clone(),
                    started: age(seen),
                    purpose,
                };
                group.spawn("probe", worker.run());
            }
            self.running.insert(seen.id.clone(), group);
        }
        self.running.retain(|id, group| {
            let keep = alive.contains(&id.as_str());
            if !keep {
                group.cancel();
            }
            keep
        });
    }

    /// No more probes: the pod ends.
    pub fn stop(&mut self) {
        self.running.drain().for_each(|(_, group)| group.cancel());
    }
}

/// How long a container has run.
fn age(seen: &Seen) -> Duration {
    let now = crate::time::now().as_nanosecond();
    Duration::from_nanos(u64::try_from(now - i128::from(seen.started)).unwrap_or(0))
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Worker {
    agent: Arc<Agent>,
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    container: Container,
    ips: Vec<String>,
    id: String,
    started: Duration,
    purpose: Purpose,
}

/// A probe's numbers with upstream's defaults.
struct Numbers {
    delay: Duration,
    period: Duration,
    limit: Duration,
    failures: i32,
    successes: i32,
}

impl Numbers {
    fn of(probe: &Probe) -> Self {
        let seconds =
            |n: Option<i32>, default: i32| Duration::from_secs(n.filter(|n| *n > 0).unwrap_or(default) as u64);
        Numbers {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            limit: seconds(probe.timeout_seconds, 1),
            failures: probe.failure_threshold.filter(|n| *n > 0).unwrap_or(3),
            successes: probe.success_threshold.filter(|n| *n > 0).unwrap_or(1),
        }
    }
}

impl Worker {
    async fn run(self) {
        let Some(probe) = self.purpose.of(&self.container).cloned() else { return };
        let numbers = Numbers::of(&probe);
        let began = Instant::now() - self.started.min(Duration::from_secs(3600));
        if self.purpose != Purpose::Startup && self.container.startup_probe.is_some() {
            while !self.shared.is_started(&self.id) {
                tokio::time::sleep(STARTED_LOOK).await;
            }
        }
        if self.purpose == Purpose::Startup && self.shared.is_started(&self.id) {
            return;
        }
        tokio::time::sleep_until(began + numbers.delay).await;
        let mut ticks = tokio::time::interval(numbers.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Positive: successes in a row; negative: failures.
        let mut row = 0i32;
        loop {
            ticks.tick().await;
            let result = self.ask(&probe, numbers.limit).await;
            row = match &result {
                Ok(()) => row.max(0).saturating_add(1),
                Err(_) => row.min(0).saturating_sub(1),
            };
            if let Err(why) = &result {
                let message = format!("{} probe failed: {why}", self.purpose.title());
                self.agent.event(&self.pod, Some(&self.container.name), Warning, "Unhealthy", message);
            }
            if row >= numbers.successes {
                match self.purpose {
                    Purpose::Startup => return self.shared.set_started(&self.id),
                    Purpose::Readiness => self.shared.set_ready(&self.id, true),
                    Purpose::Liveness => {}
                }
            }
            if -row >= numbers.failures {
                match self.purpose {
                    Purpose::Readiness => self.shared.set_ready(&self.id, false),
                    // The container is stopped now; nothing is left to ask.
                    _ => return self.shared.set_failed(&self.id, self.purpose.name()),
                }
            }
        }
    }

    async fn ask(&self, probe: &Probe, limit: Duration) -> Result<(), String> {
        let node_ip = self.agent.config.node_ip.to_string();
        if let Some(exec) = &probe.exec {
            return self.exec(exec.command.clone().unwrap_or_default(), limit).await;
        }
        if let Some(http) = &probe.http_get {
            let target = probe_http::Target::of(&self.pod, &self.container, http, &self.ips, &node_ip)?;
            let (code, _) = probe_http::get(&target, limit).await?;
            if (200..400).contains(&code) {
                return Ok(());
            }
            return Err(format!("HTTP probe failed with statuscode: {code}"));
        }
        if let Some(tcp) = &probe.tcp_socket {
            let host = probe_http::host(&self.pod, tcp.host.as_deref(), &self.ips, &node_ip)?;
            let port = probe_http::port(&self.container, &tcp.port)?;
            let connected = tokio::time::timeout(limit, probe_http::connect(&host, port)).await;
            return connected.map_err(|_| format!("dial tcp {host}:{port}: i/o timeout"))?.map(drop);
        }
        if let Some(grpc) = &probe.grpc {
            let host = probe_http::host(&self.pod, None, &self.ips, &node_ip)?;
            let port = u16::try_from(grpc.port).map_err(|_| format!("invalid port number: {}", grpc.port))?;
            return probe_grpc::check(&host, port, grpc.service.as_deref().unwrap_or_default(), limit).await;
        }
        Ok(())
    }

    async fn exec(&self, command: Vec<String>, limit: Duration) -> Result<(), String> {
        match self.agent.cri.exec_sync(&self.id, command, limit).await {
            Ok(answer) if answer.exit_code == 0 => Ok(()),
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend(answer.stderr);
                output.truncate(OUTPUT_BYTES_MAX);
                Err(String::from_utf8_lossy(&output).trim_end().to_owned())
            }
            Err(error) if error.is_deadline_exceeded() => Err(format!("command timed out after {limit:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A probe's own grace period for the restart that its failure causes.
pub fn grace_of(container: &Container, probe: &str) -> Option<i64> {
    let probe = match probe {
        "startup" => container.startup_probe.as_ref(),
        _ => container.liveness_probe.as_ref(),
    };
    probe?.termination_grace_period_seconds
}
