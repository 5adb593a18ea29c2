//! kedge: Kubernetes in one small program. Code map and invariants.
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`], [`config`] | every flag once; arguments to checked values |
//! | [`task`] | the only place that spawns |
//! | [`object`], [`status`], [`field`], [`selector`], [`quantity`], [`time`] | small value types of the API |
//! | [`client`], [`cache`] | the kube client on either transport; one list+watch cache per kind |
//! | [`events`] | the event recorder |
//! | [`kept`] | what an agent knew last, for a start without the server |
//! | [`leader`] | one of several at a time |
//! | [`join`] | how a host becomes a node of a cluster, and stays one |
//! | [`backup`] | one file with all that makes up a server |
//! | [`pki`], [`durable`] | certificates; files that survive power cuts |
//! | [`wire`] | what server and agent both speak |
//! | [`server`] | the API server |
//! | [`store`] | the etcd-shaped store |
//! | [`controllers`] | controllers and scheduler |
//! | [`agent`] | the kubelet |
//! | [`netproxy`] | Services, pod network, DNS |
//!
//! Invariants (checked by `tests/tidy.rs`): `store` knows no kinds; `controllers`, `agent`, `netproxy` import neither
//! `server` nor `store`; spawning only in `task`; deciding is pure, acting is elsewhere.

/// kedge's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version the API and the kubelet report.
pub const KUBERNETES_VERSION: &str = concat!("v1.37.1+kedge", env!("CARGO_PKG_VERSION"));

pub mod agent;
pub mod backup;
pub mod cache;
pub mod cli;
pub mod client;
pub mod config;
pub mod controllers;
pub mod durable;
pub mod events;
pub mod field;
pub mod join;
pub mod kept;
pub mod leader;
pub mod netproxy;
pub mod object;
pub mod pki;
pub mod quantity;
mod sealing;
pub mod selector;
pub mod server;
pub mod start;
pub mod status;
pub mod store;
pub mod task;
pub mod time;
pub mod wire;
