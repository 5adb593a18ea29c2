//! End-to-end tests on a real node: the real executable, kubectl, containerd, runc, nftables, in a network namespace
//! of their own. Root only. Each test makes its own host and cluster and leaves nothing behind.

mod agent;
#[path = "../etcd_certificates/mod.rs"]
mod etcd_certificates;
mod host;
mod image;
mod machine;
mod run;

mod api;
mod apps;
mod backups;
mod certificates;
mod clock;
mod damage;
mod failover;
mod failures;
mod faults;
mod images;
mod install;
mod join;
mod lifecycle;
mod offline;
mod overlay;
mod owners;
mod parts;
mod proxy;
mod servers;
mod services;
mod streams;
mod survival;
mod tunnel;
