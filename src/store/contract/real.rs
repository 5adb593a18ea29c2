//! A real etcd, empty, for one test.

use crate::store::Store;
use crate::store::etcd::Etcd;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

pub struct Real {
    child: Child,
    endpoint: String,
    _directory: tempfile::TempDir,
}

impl Real {
    /// None where etcd is not installed.
    pub fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("scratch directory");
        let port =
            || TcpListener::bind(("127.0.0.1", 0)).and_then(|socket| socket.local_addr()).expect("a port").port();
        let (client, peer) = (format!("http://127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
        let started = Command::new("etcd")
            .args(["--data-dir", directory.path().to_str().expect("text"), "--name", "one"])
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match started {
            Ok(child) => Some(Real { child, endpoint: client, _directory: directory }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("NOT RUN against etcd: install etcd-server");
                None
            }
            Err(error) => panic!("etcd does not start: {error}"),
        }
    }

    pub async fn open(&self) -> Arc<dyn Store> {
        Etcd::open(std::slice::from_ref(&self.endpoint), None).await.expect("etcd answers")
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
