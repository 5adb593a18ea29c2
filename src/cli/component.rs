//! `kedge component`: one part alone, against any Kubernetes API.

use super::{daemon, flags};
use crate::config::component as config;
use crate::start::component as start;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    part: Part,
}

#[derive(clap::Subcommand)]
enum Part {
    /// Find nodes for pods (kube-scheduler).
    Scheduler(flags::Scheduler),
    /// All controllers (kube-controller-manager), each with its own service account.
    Controllers(Box<flags::Controllers>),
    /// Run this host's pods (kubelet). They get their network from `kedge component proxy` with the same --data-dir and
    /// --run-dir, or with --overlay=none from another CNI plugin.
    Kubelet(Box<flags::Kubelet>),
    /// Services, pod network and DNS of this host (kube-proxy, CNI plugin, node-local DNS).
    Proxy(Box<flags::Proxy>),
}

/// Names of the parts that belong to a host, in its run directory.
pub const KUBELET: &str = "kubelet";
pub const PROXY: &str = "proxy";

pub fn run(args: Args) -> anyhow::Result<i32> {
    match args.part {
        Part::Scheduler(flags) => {
            let log = flags.log.clone();
            daemon::part(&log, None, async |root| start::scheduler(&config::Scheduler::from_flags(flags), root))
        }
        Part::Controllers(flags) => {
            let log = flags.log.clone();
            daemon::part(&log, None, async |root| start::controllers(config::Controllers::from_flags(*flags)?, root))
        }
        Part::Kubelet(flags) => {
            let host = flags.host.clone();
            daemon::part(&host.log, Some((&host.run_dir, KUBELET)), async |root| {
                start::kubelet(&config::Kubelet::from_flags(*flags)?, root).await
            })
        }
        Part::Proxy(flags) => {
            let host = flags.host.clone();
            daemon::part(&host.log, Some((&host.run_dir, PROXY)), async |root| {
                start::proxy(&config::Proxy::from_flags(*flags)?, root).await
            })
        }
    }
}
