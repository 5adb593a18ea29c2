//! M4: kill -9, restarts, nothing acknowledged lost, pods untouched; uninstall leaves nothing.

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has, run, sh};

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn pods_and_objects_survive_kill_nine() {
    let mut host = Host::ready();
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=2")).ok();
    host.k("expose deployment web --port=80 --target-port=8080").ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    let address = host.k("get service web -o jsonpath={.spec.clusterIP}").ok();
    let before = running(&host);

    // Write until the moment of the kill; everything acknowledged must be there afterwards.
    let written = host.dir.join("written");
    let kubeconfig = host.kubeconfig().display().to_string();
    let script = format!(
        "i=0; while kubectl --kubeconfig={kubeconfig} create cm k$i --from-literal=v=$i >/dev/null 2>&1; do echo k$i >> {}; i=$((i+1)); done",
        written.display()
    );
    let mut writer = host.inside("sh").args(["-c", &script]).spawn().expect("writer");
    eventually("some writes", 30, || {
        let n = std::fs::read_to_string(&written).unwrap_or_default().lines().count();
        if n >= 10 { Ok(()) } else { Err(format!("{n}")) }
    });
    host.kill();
    writer.wait().expect("writer ends when the server is gone");

    // While kedge is dead the pods run and the Service answers.
    run(host.inside("curl").args(["-sS", "--max-time", "3", &format!("http://{address}/")])).ok();

    host.start_again();
    host.wait_ready();
    let acknowledged = std::fs::read_to_string(&written).expect("written");
    let there = host.k("get cm -o name").ok();
    for name in acknowledged.lines() {
        has(&there, &format!("configmap/{name}\n"));
    }
    assert_eq!(running(&host), before, "no container restarted");
    run(host.inside("curl").args(["-sS", "--max-time", "3", &format!("http://{address}/")])).ok();

    // An orderly restart, too; and a pod deleted afterwards is replaced.
    host.stop();
    host.start_again();
    host.wait_ready();
    assert_eq!(running(&host), before);
    host.k("delete pods -l app=web --timeout=60s").ok();
    host.k("rollout status deployment/web --timeout=60s").ok();

    // A second server in the same place says so.
    let second = run(host.server_command(&[]).env("RUST_BACKTRACE", "0"));
    has(&second.fails(), "kedge runs already in");
}

/// Container ids and restart counts of all pods.
fn running(host: &Host) -> String {
    host.k("get pods -o jsonpath={range.items[*]}{.metadata.name}{.status.containerStatuses[*].containerID}{.status.containerStatuses[*].restartCount}{\"\\n\"}{end}").ok()
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn containerd_is_restarted_and_rules_are_healed() {
    let host = Host::ready();
    host.k(&format!("create deployment web --image={BUSYBOX}")).ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    let before = running(&host);
    let pid = sh(&format!("pgrep -f '^[^ ]*containerd --config {}' | head -1", host.data_dir().display())).ok();
    sh(&format!("kill -9 {}", pid.trim())).ok();
    eventually("containerd is back", 40, || host.kubectl(&["exec", "deploy/web", "--", "true"]).result());
    assert_eq!(running(&host), before, "containers outlive containerd");
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn uninstall_leaves_nothing() {
    let mut host = Host::ready();
    host.k(&format!("create deployment web --image={BUSYBOX} --replicas=2")).ok();
    host.k("expose deployment web --port=80 --target-port=8080 --type=NodePort").ok();
    host.k("rollout status deployment/web --timeout=60s").ok();
    let volumes = host.data_dir().join("volumes/kept");
    std::fs::create_dir_all(&volumes).expect("volume");
    has(&host.uninstall().ok(), "volumes are kept");
    assert!(volumes.exists());
    host.kill();
    let run_dir = host.run_dir().display().to_string();
    let data = host.data_dir().display().to_string();
    assert_eq!(sh(&format!("pgrep -fa '{run_dir}|{data}' | grep -v pgrep || true")).ok(), "", "processes");
    assert_eq!(sh(&format!("grep -E ' ({run_dir}|{data})' /proc/self/mounts || true")).ok(), "", "mounts");
    assert_eq!(
        sh(&format!("find /sys/fs/cgroup -path '*{}*' -name '*pod*' -type d | head -3", host.id())).ok(),
        "",
        "cgroups"
    );
    assert_eq!(run(host.inside("nft").args(["list", "tables"])).ok(), "", "rules");
    let links = run(host.inside("ip").args(["-br", "link"])).ok();
    let links: Vec<&str> = links.lines().filter_map(|l| l.split(['@', ' ']).next()).collect();
    assert_eq!(links, ["lo", "eth0"], "interfaces");
    assert!(!host.run_dir().exists());
    let left: Vec<_> = std::fs::read_dir(host.data_dir()).expect("data dir").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["volumes"]);
}
