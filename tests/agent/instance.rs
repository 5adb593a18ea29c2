//! One throw-away agent instance and the images its pods run.

use kedge::agent::Config;
use kedge::agent::cgroups::Layout;
use kedge::agent::containerd::{Supervisor, socket};
use kedge::agent::cri::Cri;
use kedge::agent::images::store::Store;
use kedge::task::Group;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Waits until a condition holds; panics with `what` after a minute, far more than anything here needs.
pub async fn eventually<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    for _ in 0..1200 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never came: {what}");
}

pub struct Instance {
    pub config: Config,
    pub layout: Layout,
    pub cri: Cri,
    pub group: Group,
    pub directory: PathBuf,
}

impl Instance {
    /// Directories and settings; nothing runs yet.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kedge-agent-").tempdir().unwrap().keep();
        let config = Config::for_tests(&directory);
        let layout = Layout::detect(&config.cgroup_root);
        let cri = Cri::new(&socket(&config)).unwrap();
        Instance { config, layout, cri, group: Group::root(), directory }
    }

    /// Supervise containerd and wait until it answers.
    pub async fn start_containerd(&self) {
        let supervisor = Supervisor::prepare(&self.config, &self.layout, self.cri.clone()).unwrap();
        let mut up = supervisor.up();
        self.group.spawn("containerd", supervisor.run(self.group.clone()));
        up.wait_for(|up| *up).await.unwrap();
    }

    pub fn store(&self) -> Store {
        Store::new(self.cri.channel())
    }

    pub fn containerd_pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.config.run_dir.join("containerd/pid")).ok()?.trim().parse().ok()
    }

    /// Remove every trace: sandboxes, containerd, mounts, cgroups, files.
    pub async fn remove(self) {
        for sandbox in self.cri.sandboxes(Default::default()).await.unwrap_or_default() {
            let _ = self.cri.stop_sandbox(&sandbox.id).await;
            let _ = self.cri.remove_sandbox(&sandbox.id).await;
        }
        let _ = self.group.join(Duration::from_secs(5)).await;
        kedge::agent::containerd::shut_down(&self.config).await;
        unmount_below(&self.directory);
        self.layout.remove_all();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

fn unmount_below(directory: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mut points: Vec<&str> = mounts.lines().filter_map(|l| l.split(' ').nth(1)).collect();
    points.reverse();
    for point in points.into_iter().filter(|p| Path::new(p).starts_with(directory)) {
        nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// An image as `docker save` writes it: busybox, with the usual applets as links. `tag` None: no manifest at all.
pub fn busybox_archive(tag: &str) -> Vec<u8> {
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is needed by these tests");
    let mut layer = tar::Builder::new(Vec::new());
    for dir in ["bin", "tmp", "etc", "proc", "sys", "dev"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if dir == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        layer.append_data(&mut header, dir, std::io::empty()).unwrap();
    }
    let mut file = |name: &str, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        layer.append_data(&mut header, name, bytes).unwrap();
    };
    file("bin/busybox", 0o755, &busybox);
    file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n");
    file("etc/group", 0o644, b"root:x:0:\nuser:x:1000:\n");
    for applet in
        "sh cat echo sleep true false ls id env hostname nc httpd wget stat mount kill touch grep ip nslookup \
                   test printf date dd tail head wc seq sync ps trap mkdir rm ln readlink"
            .split_whitespace()
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": kedge::agent::pause::architecture(), "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [kedge::agent::pause::digest(&layer)]},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [tag], "Layers": ["a/layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in [
        ("config.json", config.to_string().into_bytes()),
        ("a/layer.tar", layer),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    archive.into_inner().unwrap()
}
