//! Memory of a server with much in its store.

use crate::client::{Client, Watches, connect};
use crate::server::{Kind, Server};
use crate::{Options, mib, object, random};
use bytes::Bytes;
use futures::{StreamExt, future, stream};

const OBJECTS: usize = 100_000;
const BYTES: usize = 2048;
const ALL: &str = "/registry/";
/// Watches that nobody reads, and what is written past them.
const STALLED: usize = 1_000;
const PAST: usize = 50_000;

pub async fn measure(options: &Options) {
    println!("\n| memory above the empty store, MiB (RSS; highest so far) | JSON | random |");
    println!("|---|---|---|");
    let json = kept(options, object).await;
    let random = kept(options, random).await;
    for ((name, json), (_, random)) in json.iter().zip(&random) {
        println!("| {name} | {json} | {random} |");
    }
}

type Value = fn(usize, usize) -> Bytes;

async fn kept(options: &Options, value: Value) -> Vec<(&'static str, String)> {
    let path = options.directory.join("memory");
    let mut rows = Vec::new();
    let mut server = Server::start(Kind::Kedge, &path);
    let client = connect(&server).await;
    client.put("/other".into(), value(0, BYTES)).await;
    server.trim().await;
    let empty = server.rss().0;
    let above = |server: &Server| {
        let (now, most) = server.rss();
        format!("{:.1}; {:.1}", mib(now.saturating_sub(empty)), mib(most.saturating_sub(empty)))
    };

    fill(&client, value, OBJECTS).await;
    rows.push(("100,000 x 2 KiB written", above(&server)));
    server.trim().await;
    rows.push(("after the trim", above(&server)));
    stalled(&client, &mut server, value, &mut rows).await;
    rows.push(("files, MiB", format!("{:.0}", mib(server.disk()))));

    let path = server.stop().await;
    let mut server = Server::start(Kind::Kedge, &path);
    let client = connect(&server).await;
    rows.push(("after a restart", above(&server)));
    assert_eq!(client.list_in_pages(ALL, 500).await.0, OBJECTS);
    rows.push(("after a list of all in pages of 500", above(&server)));
    server.trim().await;
    rows.push(("after the trim", above(&server)));
    assert_eq!(client.list(ALL).await.0, OBJECTS);
    rows.push(("after a list of all at once", above(&server)));
    server.trim().await;
    rows.push(("after the trim", above(&server)));
    let path = server.stop().await;
    let _ = std::fs::remove_dir_all(path);
    rows
}

/// Watches of everything that hand out nothing, as their client does not read.
async fn stalled(client: &Client, server: &mut Server, value: Value, rows: &mut Vec<(&'static str, String)>) {
    let mut watches: Vec<Watches> = Vec::new();
    for _ in 0..10 {
        let client = connect(server).await;
        watches.push(client.watch(vec![ALL.to_owned(); STALLED / 10]).await);
    }
    let before = server.rss().0;
    fill(client, value, PAST).await;
    let more = |server: &Server| format!("{:+.1}", mib(server.rss().0) - mib(before));
    rows.push(("1,000 watches that nobody reads, 100 MiB written past them", more(server)));
    drop(watches);
    server.trim().await;
    rows.push(("the same, ended, after the trim", more(server)));
}

async fn fill(client: &Client, value: Value, count: usize) {
    let writes = (0..count).map(|number| {
        let client = client.clone();
        async move { client.put(format!("{ALL}pods/default/object-{number:06}"), value(number, BYTES)).await }
    });
    stream::iter(writes).buffer_unordered(100).for_each(|()| future::ready(())).await;
}
