//! An empty store served as etcd, for tests of others: see `tests/etcd/upstream/README.md`.

use super::server::Server;
use std::time::Duration;

/// Listens at `KEDGE_TEST_LISTEN` until its input ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "no test: a server for tests/etcd/upstream"]
async fn serve() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set"));
    let address = variable("KEDGE_TEST_LISTEN").parse().expect("IP:PORT");
    let progress = variable("KEDGE_TEST_PROGRESS_MS").parse().expect("milliseconds");
    let server = Server::start_at(address, Duration::from_millis(progress)).await;
    println!("\nlistening at {}", server.endpoint);
    let wait = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let _ = kedge::task::Group::blocking(wait).await;
}
