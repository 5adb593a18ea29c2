//! Servers that keep everything in an etcd cluster, and the way from there into a server's own store.

use super::kedge::{Kedge, eventually, kedge};
use super::server::Real;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_takes_over_from_another_and_its_store_can_become_its_own() {
    let Some(etcd) = Real::start(&[]).await else { return };
    let scratch = tempfile::tempdir().expect("scratch directory");
    let here = scratch.path();
    let endpoint = format!("http://{}", etcd.endpoint);
    let on_etcd = ["--datastore-endpoint", endpoint.as_str()];
    let mut first = Kedge::start(here, 1, &on_etcd);
    first.ready().await;
    first.kubectl("create configmap before --from-literal=a=b").await.expect("creates");
    first.kubectl("create secret generic hidden --from-literal=word=hush").await.expect("creates");

    // Nobody gets in without the token.
    assert!(Kedge::start(here, 8, &on_etcd).refuses().await.contains("holds a cluster already"));
    let wrong = [&on_etcd[..], &["--token", "wrong"]].concat();
    assert!(Kedge::start(here, 9, &wrong).refuses().await.contains("not the token of the cluster"));

    let token_file = first.data.join("server/node-token");
    let token = ["--token-file", token_file.to_str().expect("text")];
    let mut second = Kedge::start(here, 2, &[&on_etcd[..], &token].concat());
    second.ready().await;
    // Secrets, users' certificates and service accounts' tokens of one are those of the other.
    let hidden = "get secret hidden -o jsonpath={.data.word}";
    assert_eq!(second.kubectl(hidden).await.expect("reads"), "aHVzaA==");
    assert_eq!(second.kubectl_as(&first, hidden).await.expect("lets in"), "aHVzaA==");
    let issued = first.kubectl("create token default").await.expect("issues");
    assert_eq!(second.whoami(&issued).await.expect("knows it"), "system:serviceaccount:default:default");
    let addresses = "get endpoints kubernetes -o jsonpath={.subsets[*].addresses[*].ip}";
    assert_eq!(second.kubectl(addresses).await.expect("reads"), "192.0.2.1 192.0.2.2");

    first.kill().await;
    second.kubectl("create namespace after").await.expect("goes on");
    eventually("the other's controllers take over", async || {
        second.kubectl("get -n after serviceaccount/default configmap/kube-root-ca.crt").await.is_ok()
    })
    .await;
    eventually("the lost server is no endpoint any more", async || {
        second.kubectl(addresses).await.as_deref() == Ok("192.0.2.2")
    })
    .await;

    let backup = here.join("one.kedge-backup");
    kedge(here, 2, &format!("backup save {}", backup.display())).await.expect("saves");
    let objects = "get configmaps,secrets,namespaces,serviceaccounts -A -o name";
    let before = second.kubectl(objects).await.expect("lists");
    second.stop().await;
    let import = format!("store import --endpoints {endpoint}");
    kedge(here, 2, &import).await.expect("imports");
    assert!(kedge(here, 2, &import).await.expect_err("there is one now").contains("--force"));
    kedge(here, 2, &format!("{import} --force")).await.expect("imports again");
    let mut alone = Kedge::start(here, 2, &["--etcd-listen", "off"]);
    alone.ready().await;
    assert_eq!(alone.kubectl(objects).await.expect("lists"), before);
    assert_eq!(alone.kubectl(hidden).await.expect("reads"), "aHVzaA==");
    assert!(kedge(here, 2, &import).await.expect_err("is refused").contains("is the server stopped?"));
    alone.stop().await;

    // On another host: from the backup, and from etcd with the token.
    kedge(here, 3, &format!("backup restore {}", backup.display())).await.expect("restores");
    assert!(kedge(here, 4, &import).await.expect_err("needs the token").contains("holds a cluster already"));
    kedge(here, 4, &format!("{import} {}", token.join(" "))).await.expect("imports");
    for number in [3, 4] {
        let mut moved = Kedge::start(here, number, &["--etcd-listen", "off"]);
        moved.ready().await;
        assert_eq!(moved.kubectl(objects).await.expect("lists"), before);
        assert_eq!(moved.kubectl(hidden).await.expect("reads"), "aHVzaA==");
        moved.stop().await;
    }
}
