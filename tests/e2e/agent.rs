//! A host that runs `kedge agent`.

use crate::host::Host;
use crate::machine::Machine;
use crate::run::{Outcome, run, sh};
use std::ops::{Deref, DerefMut};
use std::process::Command;

pub struct Agent {
    machine: Machine,
    pub name: String,
    pub ip: String,
    flags: Vec<String>,
    /// Namespaces that go with it.
    also: Vec<String>,
}

impl Agent {
    pub fn new(machine: Machine, name: &str, ip: &str) -> Agent {
        Agent { machine, name: name.to_owned(), ip: ip.to_owned(), flags: Vec::new(), also: Vec::new() }
    }

    pub fn also_remove(&mut self, namespace: &str) {
        self.also.push(namespace.to_owned());
    }

    /// `kedge agent` with these further flags.
    pub fn agent_command(&self, flags: &[&str]) -> Command {
        let mut command = self.daemon("agent");
        command.arg(format!("--node-name={}", self.name)).arg(format!("--node-ip={}", self.ip)).args(flags);
        command
    }

    pub fn start(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|f| (*f).to_owned()).collect();
        let command = self.agent_command(flags);
        self.spawn(command);
    }

    /// The same agent again.
    pub fn start_again(&mut self) {
        let flags = self.flags.clone();
        self.start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Join the cluster of this server with its token, and run.
    pub fn join(&mut self, server: &Host, flags: &[&str]) {
        let (url, token) = (format!("--server={}", server_url()), format!("--token={}", server.token()));
        self.start(&[&[url.as_str(), token.as_str()], flags].concat());
    }

    /// Try to join; the agent must give up by itself.
    pub fn try_join(&self, flags: &[&str]) -> Outcome {
        run(&mut self.join_command(flags))
    }

    pub fn join_command(&self, flags: &[&str]) -> Command {
        let url = format!("--server={}", server_url());
        let mut command = Command::new("timeout");
        command.arg("30");
        let inner = self.agent_command(&[&[url.as_str()], flags].concat());
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }
}

/// Where servers of these tests are.
pub fn server_url() -> String {
    format!("https://{}:6443", Host::IP)
}

impl Deref for Agent {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.machine
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::env::var_os("KEDGE_E2E_KEEP").is_none() {
            self.also.iter().for_each(|namespace| drop(sh(&format!("ip netns del {namespace}"))));
        }
    }
}
