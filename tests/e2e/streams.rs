//! M3: exec, attach, cp, port-forward with kubectl 1.37 (WebSocket v5, SPDY tunnels).

use crate::host::Host;
use crate::image::BUSYBOX;
use crate::run::{eventually, has, run, sh};
use std::io::{Read, Write};
use std::process::Stdio;

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn exec_attach_cp_and_port_forward() {
    let host = Host::ready();
    host.k(&format!("create deployment web --image={BUSYBOX}")).ok();
    host.k("expose deployment web --port=80 --target-port=8080").ok();
    let shell = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: shell}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: {BUSYBOX}, command: [sh], stdin: true, tty: false}}\n"
    );
    host.apply(&shell).ok();
    host.k("wait --for=condition=Ready pod/shell --timeout=60s").ok();
    host.k("rollout status deployment/web --timeout=60s").ok();

    // Streams stay apart, exit codes arrive, stdin ends.
    let outcome = host.kubectl(&["exec", "shell", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((outcome.stdout.as_str(), outcome.ok), ("out\n", false));
    has(&outcome.stderr, "err\n");
    has(&outcome.stderr, "exit code 7");
    let mut child = host
        .kubectl_command(&["exec", "-i", "shell", "--", "sha256sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl exec");
    let data = vec![b'x'; 3 * 1024 * 1024];
    child.stdin.take().expect("stdin").write_all(&data).expect("write");
    let output = child.wait_with_output().expect("kubectl exec");
    let expect = sh("head -c 3145728 /dev/zero | tr '\\0' x | sha256sum").ok();
    assert_eq!(String::from_utf8_lossy(&output.stdout).split(' ').next(), expect.split(' ').next());
    has(&host.kubectl(&["exec", "shell", "--", "nonsense"]).fails(), "nonsense");
    has(&host.kubectl(&["exec", "shell", "-c", "other", "--", "ls"]).fails(), "container other");
    // A terminal (script(1) gives kubectl one).
    let tty = run(host.inside("script").args([
        "-qec",
        &format!("kubectl --kubeconfig={} exec -it shell -- sh -c 'tty; stty size'", host.kubeconfig().display()),
        "/dev/null",
    ]));
    has(&tty.stdout, "/dev/pts/");

    // attach: the shell's own stdin and stdout.
    let mut attached = host
        .kubectl_command(&["attach", "-i", "shell"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl attach");
    let mut input = attached.stdin.take().expect("stdin");
    std::thread::sleep(std::time::Duration::from_secs(1));
    input.write_all(b"echo attached to $HOSTNAME\n").expect("write");
    let mut seen = [0u8; 64];
    let n = attached.stdout.as_mut().expect("stdout").read(&mut seen).expect("read");
    has(&String::from_utf8_lossy(&seen[..n]), "attached to shell");
    attached.kill().expect("kill");
    attached.wait().expect("wait");
    drop(input);

    // cp both ways.
    let file = host.dir.join("blob");
    std::fs::write(&file, &data).expect("write");
    host.kubectl(&["cp", &file.display().to_string(), "shell:/tmp/blob"]).ok();
    let back = host.dir.join("back");
    host.kubectl(&["cp", "shell:/tmp/blob", &back.display().to_string()]).ok();
    assert_eq!(std::fs::read(&back).expect("copied back"), data);

    // port-forward to a Service and a pod.
    let mut forward = host
        .kubectl_command(&["port-forward", "svc/web", "18080:80"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl port-forward");
    let page = eventually("forwarded", 20, || {
        run(host.inside("curl").args(["-sS", "--max-time", "3", "http://127.0.0.1:18080/"])).result()
    });
    has(&page, "web-");
    let many = run(host
        .inside("sh")
        .args(["-c", "for i in $(seq 20); do curl -s --max-time 3 http://127.0.0.1:18080/; done"]))
    .ok();
    assert_eq!(many.lines().count(), 20, "{many}");
    forward.kill().expect("kill");
    forward.wait().expect("wait");

    // An older client: SPDY instead of WebSocket.
    let spdy = run(host
        .kubectl_command(&["exec", "shell", "--", "echo", "over spdy"])
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"))
    .ok();
    assert_eq!(spdy.trim(), "over spdy");
    let mut forward = host
        .kubectl_command(&["port-forward", "deployment/web", "18081:8080"])
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("kubectl port-forward");
    eventually("forwarded over SPDY", 20, || {
        run(host.inside("curl").args(["-sS", "--max-time", "3", "http://127.0.0.1:18081/"])).result()
    });
    forward.kill().expect("kill");
    forward.wait().expect("wait");

    // The kubelet's own API asks who calls.
    let refused =
        run(host.inside("curl").args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "https://127.0.0.1:10250/pods"]))
            .ok();
    assert_eq!(refused, "401");
}
