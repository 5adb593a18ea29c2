//! Every part as a process of its own, over HTTPS, with the identity that the server wrote for it.

use crate::host::{Host, kedge};
use crate::image::BUSYBOX;
use crate::machine::{Machine, enter, tail};
use crate::run::{Outcome, eventually, has, run, sh};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// `kedge component <part>` on a host with a server.
struct Part {
    name: &'static str,
    namespace: String,
    flags: Vec<String>,
    log: PathBuf,
    process: Option<Child>,
}

impl Part {
    fn start(machine: &Machine, name: &'static str, kubeconfig: PathBuf, flags: &[String]) -> Part {
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let mut part = Part {
            name,
            namespace: machine.id().to_owned(),
            flags: [&[kubeconfig], flags].concat(),
            log: machine.dir.join(format!("{name}.log")),
            process: None,
        };
        part.start_again();
        part
    }

    fn start_again(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("log");
        let mut command = enter(&self.namespace, kedge());
        command.args(["component", self.name]).args(&self.flags);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        self.process = Some(command.spawn().expect("start a part"));
    }

    /// kill -9.
    fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            child.kill().expect("kill -9");
            child.wait().expect("wait");
        }
    }

    /// SIGTERM, and wait.
    fn stop(&mut self) {
        if let Some(mut child) = self.process.take() {
            sh(&format!("kill {}", child.id())).ok();
            assert!(child.wait().expect("wait").success(), "{}", self.name);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("---- end of the log of {}\n{}", self.name, tail(&log));
        }
        self.kill();
    }
}

fn kubeconfig(host: &Host, part: &str) -> PathBuf {
    host.data_dir().join(format!("server/cred/{part}.kubeconfig"))
}

/// kubectl as a part.
fn as_part(host: &Host, part: &str, line: &str) -> Outcome {
    let mut command: Command = host.inside("kubectl");
    command.arg(format!("--kubeconfig={}", kubeconfig(host, part).display())).args(line.split_whitespace());
    run(command.env("HOME", &host.dir))
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn every_part_runs_alone() {
    let mut host = Host::new();
    host.import();
    host.start(&["--disable-agent", "--disable=scheduler,controllers"]);
    host.wait_api();

    // Who the parts are, and that they may do their work and no more.
    for (part, user, may, may_not) in [
        ("scheduler", "system:kube-scheduler", "create pods --subresource=binding", "create deployments"),
        ("controllers", "system:kube-controller-manager", "list deployments", "delete pods"),
        ("kubelet", "system:node:node-1", "list nodes", "create deployments"),
        ("proxy", "system:kube-proxy", "watch endpointslices", "list secrets"),
    ] {
        has(&as_part(&host, part, "auth whoami").ok(), user);
        assert_eq!(as_part(&host, part, &format!("auth can-i {may}")).ok(), "yes\n", "{part}");
        has(&as_part(&host, part, &format!("auth can-i {may_not}")).stdout, "no");
    }

    let file = |flag: &str, path: PathBuf| format!("--{flag}={}", path.display());
    let tls = host.data_dir().join("server/tls");
    let node =
        [&host.instance_flags()[..], &["--node-name=node-1".to_owned(), format!("--node-ip={}", Host::IP)]].concat();
    let certificates = [
        file("client-ca-file", tls.join("client-ca.crt")),
        file("tls-cert-file", tls.join("serving-kubelet.crt")),
        file("tls-private-key-file", tls.join("serving-kubelet.key")),
    ];
    let start = |name, flags: &[String]| Part::start(&host, name, kubeconfig(&host, name), flags);
    let mut scheduler = start("scheduler", &[]);
    let mut controllers = start("controllers", &[file("cluster-signing-dir", tls.clone())]);
    let mut proxy = start("proxy", &node);
    let mut kubelet = start("kubelet", &[&node[..], &certificates].concat());
    host.wait_node("node-1");

    // All of them together carry an application.
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=2")).ok();
    host.k("expose deployment web --port=80 --target-port=8080").ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    let address = host.k("get service web -o jsonpath={.spec.clusterIP}").ok();
    let answers = |host: &Host| {
        eventually("the Service answers", 20, || {
            run(host.inside("curl").args(["-sS", "--max-time", "3", &format!("http://{address}/")])).result()
        })
    };
    has(&answers(&host), "web-");
    // Each controller has written what is there as itself.
    let managers = host.kubectl(&["get", "rs,pods,endpointslices", "-o", "yaml", "--show-managed-fields"]).ok();
    for manager in ["deployment-controller", "replicaset-controller", "endpointslice-controller", "kube-scheduler"] {
        has(&managers, &format!("manager: {manager}"));
    }
    eventually("exec", 20, || host.kubectl(&["exec", "deploy/web", "--", "echo", "there"]).result());
    let leases = host.k("get leases -n kube-system").ok();
    has(&leases, "kube-scheduler");
    has(&leases, "kube-controller-manager");
    let containers = "get pods -l app=web -o jsonpath={.items[*].status.containerStatuses[*].containerID}";
    let before = host.k(containers).ok();

    // Each is killed and started again: what runs goes on meanwhile, and afterwards all of them work again. A second
    // scheduler waits while the first has the lease, and takes over at once when that is told to stop.
    for part in [&mut controllers, &mut proxy, &mut kubelet] {
        part.kill();
    }
    answers(&host);
    let mut second = start("scheduler", &[]);
    scheduler.stop();
    for part in [&mut controllers, &mut proxy, &mut kubelet] {
        part.start_again();
    }
    host.k("scale deployment web --replicas=3").ok();
    // The lease of the killed controllers holds 15 s.
    host.k("rollout status deployment/web --timeout=60s").ok();
    let after = host.k(containers).ok();
    assert!(before.split_whitespace().all(|id| after.contains(id)), "{before}\n{after}");
    answers(&host);
    has(&host.k("get lease kube-scheduler -n kube-system -o jsonpath={.spec.leaseTransitions}").ok(), "1");
    eventually("the Service has the third pod", 20, || {
        let slices = host
            .k("get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[*].addresses}");
        let text = slices.result()?;
        if text.matches("10.42.").count() == 3 { Ok(()) } else { Err(text) }
    });
    second.stop();

    // Another host joins: the controllers sign for it. Its kubelet, too, is a process of its own, with the identity that
    // the agent keeps, and asks for the certificate of its API.
    let mut agent = host.beside(2);
    agent.import();
    agent.join(&host, &["--disable=kubelet"]);
    let pki = agent.data_dir().join("agent/pki");
    eventually("the host has joined", 60, || {
        pki.join("kubelet.kubeconfig").exists().then_some(()).ok_or_else(|| agent.log())
    });
    let clients = file("client-ca-file", tls.join("client-ca.crt"));
    let node = [&agent.instance_flags()[..], &[format!("--node-name={}", agent.name), clients]].concat();
    let _kubelet = Part::start(&agent, "kubelet", pki.join("kubelet.kubeconfig"), &node);
    host.wait_node("node-2");
    let spec = r#"{"spec":{"nodeName":"node-2","terminationGracePeriodSeconds":0}}"#;
    host.kubectl(&["run", "far", &format!("--image={BUSYBOX}"), "--overrides", spec]).ok();
    host.k("wait --for=condition=Ready pod/far --timeout=60s").ok();
    eventually("exec on the other host", 30, || host.kubectl(&["exec", "far", "--", "echo", "there"]).result());
    has(&host.k("get csr").ok(), "Approved,Issued");
}
