//! What goes wrong says so, in the words Kubernetes users know.

use crate::host::{Host, kedge};
use crate::image::BUSYBOX;
use crate::run::{eventually, has, run};
use std::process::Command;

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn pods_that_cannot_run_say_why() {
    let host = Host::ready();
    host.k("run missing --image=127.0.0.1:1/no/such:image").ok();
    host.k(&format!("run crash --image={BUSYBOX} --command -- sh -c")).ok();
    host.kubectl(&["patch", "pod", "crash", "-p", "{}"]).ok();
    let big = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: big}}\nspec:\n  containers:\n  - {{name: c, image: {BUSYBOX}, resources: {{requests: {{cpu: 1000}}}}}}\n"
    );
    host.apply(&big).ok();
    let never = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: sick}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: {BUSYBOX}, livenessProbe: {{httpGet: {{port: 1, path: /}}, periodSeconds: 1, failureThreshold: 2}}}}\n"
    );
    host.apply(&never).ok();
    let sees = |what: &str, line: &str, parts: &[&str]| {
        eventually(what, 90, || {
            let text = host.k(line).result()?;
            parts.iter().find(|p| text.contains(*p)).map(|_| ()).ok_or(text)
        })
    };
    sees("image error", "get pod missing", &["ErrImagePull", "ImagePullBackOff"]);
    sees("back-off", "get pod missing", &["ImagePullBackOff"]);
    sees("image event", "describe pod missing", &["Failed to pull image \"127.0.0.1:1/no/such:image\""]);
    sees("crash loop", "get pod crash", &["CrashLoopBackOff"]);
    sees("crash event", "describe pod crash", &["Back-off restarting failed container"]);
    sees("unschedulable", "describe pod big", &["0/1 nodes are available: 1 Insufficient cpu."]);
    sees("probe", "describe pod sick", &["Liveness probe failed"]);
    sees(
        "restarted by the probe",
        "get pod sick -o jsonpath={.status.containerStatuses[0].restartCount}",
        &["1", "2", "3"],
    );
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn starts_that_cannot_work_say_why() {
    let host = Host::new();
    let start = |flags: &[&str]| {
        run(Command::new("timeout")
            .arg("20")
            .arg("nsenter")
            .arg(format!("--net=/run/netns/{}", host.id()))
            .arg(kedge())
            .arg("server")
            .args(host.instance_flags())
            .args(["--disable-agent"])
            .args(flags))
    };

    let config = host.dir.join("bad.yaml");
    let with_config = |text: &str| {
        std::fs::write(&config, text).expect("config");
        start(&[&format!("--config={}", config.display())]).fails()
    };
    has(
        &with_config("https-listen-prot: 7443\n"),
        "bad.yaml:1: unknown key `https-listen-prot`; did you mean `https-listen-port`?",
    );
    has(&with_config("https-listen-port: many\n"), "https-listen-port");
    has(&with_config("a: [\n"), "is not valid YAML");
    has(&start(&["--config=/nonexistent.yaml"]).fails(), "does not exist");
    has(&start(&["--cluster-cidr=10.0.0.0/8", "--service-cidr=10.43.0.0/16"]).fails(), "overlap");
    has(&start(&["--disable=everything"]).fails(), "no such part");

    // A busy port.
    let mut listener = host.inside("busybox").args(["nc", "-l", "-p", "6443"]).spawn().expect("listener");
    eventually("port is taken", 5, || run(host.inside("sh").args(["-c", "ss -ltn | grep -q :6443"])).result());
    has(&start(&[]).fails(), "6443");
    let _ = listener.kill();
    let _ = listener.wait();

    // A data directory that is a file.
    let file = host.dir.join("file");
    std::fs::write(&file, "x").expect("file");
    let mut other = host.inside(kedge());
    other.args(["server", "--disable-agent", &format!("--data-dir={}", file.display())]);
    has(&run(&mut other).fails(), "data directory");
}
