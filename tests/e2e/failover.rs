//! A host dies: its pods run elsewhere. `KEDGE_FAILOVER=default` measures that with the default settings (six minutes).

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::eventually;
use std::time::Instant;

/// Until pods are replaced: the server must miss the node, then they have their time.
const SHORT: [&str; 3] = [
    "--node-monitor-grace-period=10s",
    "--default-not-ready-toleration-seconds=5",
    "--default-unreachable-toleration-seconds=5",
];

#[test]
#[ignore = "end to end on two real nodes, as root: ./test.sh"]
fn pods_of_a_dead_host_run_elsewhere() {
    let settings: &[&str] = match std::env::var("KEDGE_FAILOVER").as_deref() {
        Ok("default") => &[],
        _ => &SHORT,
    };
    let (host, mut second) = Host::and_second(settings);
    host.k("cordon node-1").ok();
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=3")).ok();
    host.k("rollout status deployment/web --timeout=90s").ok();
    host.k("uncordon node-1").ok();
    let ready_on = |node: &str| {
        let path = "{range.items[*]}{.spec.nodeName}={.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
        let pods = host.kubectl(&["get", "pods", "-l=app=web", &format!("-o=jsonpath={path}")]).result()?;
        let ready = pods.lines().filter(|line| *line == format!("{node}=True")).count();
        if ready == 3 { Ok(()) } else { Err(pods) }
    };
    eventually("all on node-2", 10, || ready_on("node-2"));

    host.cut(&second.ip);
    second.reboot();
    let died = Instant::now();
    eventually("all on node-1", 420, || ready_on("node-1"));
    eprintln!("pods of a dead host ran elsewhere after {:.1} s with {settings:?}", died.elapsed().as_secs_f64());

    // It comes back: what was replaced ends there, nothing else changes.
    let path = "-o=jsonpath={.items[?(@.spec.nodeName==\"node-1\")].metadata.name}";
    let there = host.kubectl(&["get", "pods", path]).ok();
    host.mend(&second.ip);
    second.start_again();
    host.wait_node("node-2");
    eventually("only the new pods are left", 90, || {
        let all = host.k("get pods -o jsonpath={.items[*].metadata.name}").result()?;
        if all == there { Ok(()) } else { Err(all) }
    });
}
