//! Images pulled from a registry (Debian's docker-registry on the client beside the node), by policy.

use crate::host::Host;
use crate::image;
use crate::run::{eventually, has, run, sh};
use std::process::{Child, Stdio};

/// A registry that ends with the test.
struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ADDRESS: &str = "10.99.0.1:5000";

/// A registry inside the node's namespace, holding the busybox image as `app:1`.
fn registry(host: &Host) -> Registry {
    let root = host.dir.join("registry");
    let config = host.dir.join("registry.yml");
    let text = format!(
        "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{ADDRESS}'}}\n",
        root.display()
    );
    std::fs::write(&config, text).expect("registry configuration");
    let mut command = host.inside("docker-registry");
    command.args(["serve", &config.display().to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let registry = Registry(command.spawn().expect("docker-registry is installed by ./test.sh"));
    eventually("registry answers", 20, || {
        run(host.inside("curl").args(["-sf", &format!("http://{ADDRESS}/v2/")])).result()
    });
    push(host);
    registry
}

/// Push the image by the registry's own API: blobs, then the manifest (OCI distribution spec).
fn push(host: &Host) {
    let dir = host.dir.join("push");
    let archive = image::busybox(&dir, &[&format!("{ADDRESS}/app:1")]);
    let script = format!(
        r#"cd {dir}; tar xf {archive}; config=$(ls *.json | grep -v manifest); base=http://{ADDRESS}/v2/app
        put() {{ digest=sha256:$(sha256sum $1 | cut -d' ' -f1); at=$(curl -sfi -X POST $base/blobs/uploads/ | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
          curl -sf -X PUT --data-binary @$1 -H 'Content-Type: application/octet-stream' "$at&digest=$digest"; echo $digest; }}
        c=$(put $config); l=$(put layer.tar)
        cat > m <<M
{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"$c","size":$(stat -c %s $config)}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"$l","size":$(stat -c %s layer.tar)}}]}}
M
        curl -sf -X PUT --data-binary @m -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' $base/manifests/1"#,
        dir = dir.display(),
        archive = archive.display(),
    );
    run(host.inside("sh").args(["-ec", &script])).ok();
}

#[test]
#[ignore = "end to end on a real node, as root: ./test.sh"]
fn images_are_pulled_by_policy() {
    let host = Host::ready();
    // containerd speaks plain HTTP to a registry that its configuration names so.
    let hosts = host.data_dir().join(format!("agent/certs.d/{ADDRESS}"));
    sh(&format!("mkdir -p '{0}'; printf '[host.\"http://{ADDRESS}\"]\\n  capabilities = [\"pull\", \"resolve\"]\\n' > '{0}/hosts.toml'", hosts.display())).ok();
    let registry = registry(&host);
    let pod = |name: &str, policy: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: c, image: \"{ADDRESS}/app:1\", imagePullPolicy: {policy}}}\n"
        )
    };
    host.apply(&pod("never", "Never")).ok();
    eventually("refused", 30, || {
        let text = host.k("get pod never").ok();
        if text.contains("ErrImageNeverPull") { Ok(()) } else { Err(text) }
    });
    host.apply(&pod("pulled", "IfNotPresent")).ok();
    host.k("wait --for=condition=Ready pod/pulled --timeout=60s").ok();
    has(&host.k("describe pod pulled").ok(), "Successfully pulled image");
    host.apply(&pod("always", "Always")).ok();
    host.k("wait --for=condition=Ready pod/always --timeout=60s").ok();
    // Without the registry: what is there runs, what must be asked for waits.
    drop(registry);
    host.apply(&pod("present", "IfNotPresent")).ok();
    host.k("wait --for=condition=Ready pod/present --timeout=60s").ok();
    has(&host.k("describe pod present").ok(), "already present on machine");
    host.k("delete pod always --timeout=30s").ok();
    host.apply(&pod("always", "Always")).ok();
    eventually("pull fails", 60, || {
        let text = host.k("get pod always").ok();
        if text.contains("ErrImagePull") || text.contains("ImagePullBackOff") { Ok(()) } else { Err(text) }
    });
}
