//! `kedge kubectl …`: the kubectl on PATH with this cluster's kubeconfig.

use anyhow::bail;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The cluster's admin kubeconfig.
    #[arg(long, env = "KEDGE_WRITE_KUBECONFIG", value_name = "FILE", default_value = crate::config::KUBECONFIG)]
    kedge_kubeconfig: PathBuf,

    /// Everything kubectl takes.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Becomes kubectl; returns only on failure.
pub fn run(args: Args) -> anyhow::Result<i32> {
    let file = &args.kedge_kubeconfig;
    if let Err(error) = std::fs::File::open(file) {
        match error.kind() {
            std::io::ErrorKind::NotFound => bail!("{} does not exist: is `kedge server` running?", file.display()),
            std::io::ErrorKind::PermissionDenied => {
                bail!(
                    "no permission to read {0}: run as root, or copy it: sudo cat {0} > ~/.kube/config",
                    file.display()
                )
            }
            _ => bail!("cannot read {}: {error}", file.display()),
        }
    }
    let mut command = std::process::Command::new("kubectl");
    if std::env::var_os("KUBECONFIG").is_none() {
        command.env("KUBECONFIG", file);
    }
    let error = command.args(args.args).exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        bail!(
            "there is no kubectl on PATH: install it (https://kubernetes.io/docs/tasks/tools/) and use it directly \
             with KUBECONFIG={}",
            file.display()
        );
    }
    bail!("cannot run kubectl: {error}")
}
