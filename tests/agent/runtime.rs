//! containerd supervised, the pause image, imported archives.

use super::instance::{Instance, busybox_archive, eventually};
use k8s_cri::v1 as cri;
use kedge::agent::images::import::Importer;
use kedge::agent::images::store::ensure_pause;
use kedge::agent::pause;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn sandbox_config() -> cri::PodSandboxConfig {
    let network = cri::NamespaceMode::Node as i32;
    let namespace_options = Some(cri::NamespaceOption { network, ..Default::default() });
    let security_context = Some(cri::LinuxSandboxSecurityContext { namespace_options, ..Default::default() });
    let linux = Some(cri::LinuxPodSandboxConfig { security_context, ..Default::default() });
    let metadata = cri::PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 };
    cri::PodSandboxConfig { metadata: Some(metadata), linux, ..Default::default() }
}

/// The pause image, also in containerd's CRI plugin, which hears of it a little later.
async fn pause_image(instance: &Instance) {
    ensure_pause(&instance.store()).await.unwrap();
    eventually("the pause image in CRI", || async { instance.cri.image(pause::IMAGE).await.unwrap().is_some() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_runs_from_the_executable_alone_and_survives_us() {
    let instance = Instance::new();
    instance.start_containerd().await;
    pause_image(&instance).await;
    let id = instance.cri.run_sandbox(sandbox_config(), "").await.unwrap();
    ensure_pause(&instance.store()).await.unwrap();

    // Our end is not containerd's; the next of us adopts it.
    let pid = instance.containerd_pid().unwrap();
    instance.group.join(std::time::Duration::from_secs(5)).await.unwrap();
    let next = Instance { group: kedge::task::Group::root(), ..instance };
    next.start_containerd().await;
    assert_eq!(next.containerd_pid(), Some(pid));

    // Its death is not the pods': the sandbox is still there when a new one has started.
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("another containerd", || async {
        next.containerd_pid() != Some(pid) && next.cri.version().await.is_ok()
    })
    .await;
    let sandboxes = next.cri.sandboxes(Default::default()).await.unwrap();
    let states: Vec<_> = sandboxes.iter().map(|s| (s.id.clone(), s.state)).collect();
    assert_eq!(states, [(id, cri::PodSandboxState::SandboxReady as i32)]);
    next.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_imported_and_run() {
    let instance = Instance::new();
    instance.start_containerd().await;
    let images = instance.config.dir.join("images");
    std::fs::create_dir_all(&images).unwrap();
    let old = |name: &str, bytes: &[u8]| {
        let path = images.join(name);
        std::fs::write(&path, bytes).unwrap();
        let past = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        std::fs::File::open(&path).unwrap().set_modified(past).unwrap();
    };
    let archive = busybox_archive("busybox:a");
    old("plain.tar", &archive);
    old("zstd.tar.zst", &zstd::encode_all(busybox_archive("example.org/box:b").as_slice(), 1).unwrap());
    old("broken.tar", &archive[..archive.len() / 2]);
    let importer = Importer::new(instance.store(), &instance.config.dir).unwrap();
    instance.group.spawn("import", importer.run(instance.group.clone()));
    for name in ["docker.io/library/busybox:a", "busybox:a", "example.org/box:b"] {
        eventually(name, || async { instance.cri.image(name).await.unwrap().is_some() }).await;
    }

    pause_image(&instance).await;
    let sandbox = instance.cri.run_sandbox(sandbox_config(), "").await.unwrap();
    let container = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: "busybox:a".into(), ..Default::default() }),
        command: vec!["sh".into(), "-c".into(), "exit 7".into()],
        linux: Some(Default::default()),
        ..Default::default()
    };
    let id = instance.cri.create_container(&sandbox, container, sandbox_config()).await.unwrap();
    instance.cri.start_container(&id).await.unwrap();
    eventually("the exit code", || async { instance.cri.container_status(&id).await.unwrap().exit_code == 7 }).await;
    instance.remove().await;
}
