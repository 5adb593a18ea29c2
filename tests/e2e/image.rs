//! Test images, made here from Debian's static busybox: nothing is pulled.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of the image with a shell, the usual tools and a web server on port 8080 that answers with its host name.
pub const BUSYBOX: &str = "kedge.test/busybox:1";

/// Serves `/` (host name) and `/cgi-bin/ip` (address of the client) on $PORT or 8080.
const SERVE: &str = r#"#!/bin/sh
mkdir -p /tmp/www/cgi-bin
hostname > /tmp/www/index.html
printf '#!/bin/sh\necho Content-Type: text/plain; echo; echo $REMOTE_ADDR\n' > /tmp/www/cgi-bin/ip
chmod +x /tmp/www/cgi-bin/ip
trap 'exit 0' TERM
httpd -f -v -p "${PORT:-8080}" -h /tmp/www &
wait
"#;

/// Write the image as a docker archive into `dir` under these names.
pub fn busybox(dir: &Path, names: &[&str]) -> PathBuf {
    let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let program = program.expect("busybox-static is installed by ./test.sh");
    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["bin/", "etc/", "tmp/", "root/", "proc/", "sys/", "dev/", "var/", "home/"] {
        entry(&mut layer, folder, tar::EntryType::Directory, if folder == "tmp/" { 0o1777 } else { 0o755 }, b"");
    }
    entry(&mut layer, "bin/busybox", tar::EntryType::Regular, 0o755, &std::fs::read(program).expect("busybox"));
    let applets = Command::new(program).arg("--list").output().expect("busybox --list").stdout;
    for applet in String::from_utf8_lossy(&applets).lines().filter(|a| *a != "busybox") {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("link");
    }
    entry(&mut layer, "bin/serve", tar::EntryType::Regular, 0o755, SERVE.as_bytes());
    entry(
        &mut layer,
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n",
    );
    entry(&mut layer, "etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\nuser:x:1000:\n");
    let layer = layer.into_inner().expect("layer");

    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/serve"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
    });
    let config = config.to_string().into_bytes();
    let config_name = format!("{}.json", sha256(&config));
    let manifest = serde_json::json!([{"Config": config_name, "RepoTags": names, "Layers": ["layer.tar"]}]);

    let mut archive = tar::Builder::new(Vec::new());
    entry(&mut archive, &config_name, tar::EntryType::Regular, 0o644, &config);
    entry(&mut archive, "layer.tar", tar::EntryType::Regular, 0o644, &layer);
    entry(&mut archive, "manifest.json", tar::EntryType::Regular, 0o644, manifest.to_string().as_bytes());
    let file = dir.join("busybox.tar");
    std::fs::create_dir_all(dir).expect("image directory");
    // Written under another name first: the directory is watched.
    let scratch = dir.join(".busybox.new");
    std::fs::write(&scratch, archive.into_inner().expect("archive")).expect("write image");
    std::fs::rename(scratch, &file).expect("rename image");
    file
}

fn entry(tar: &mut tar::Builder<Vec<u8>>, path: &str, kind: tar::EntryType, mode: u32, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    tar.append_data(&mut header, path, data).expect("tar entry");
}

fn sha256(data: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(data).iter().map(|b| format!("{b:02x}")).collect()
}
