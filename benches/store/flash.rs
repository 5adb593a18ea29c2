//! Bytes written to disk per byte of value, etcd beside kedge.

use crate::client::{Client, connect};
use crate::server::{Kind, Server, has_etcd};
use crate::{Options, mib, object, random};
use bytes::Bytes;
use futures::{StreamExt, future, stream};

const BYTES: usize = 1024;
/// What is in the store that is opened.
const OBJECTS: usize = 100_000;
const OBJECT_BYTES: usize = 2048;

type Value = fn(usize, usize) -> Bytes;

pub async fn measure(options: &Options) {
    let mut columns = vec![("kedge", Kind::Kedge)];
    if has_etcd() {
        columns.insert(0, ("etcd", Kind::Etcd));
    }
    let mut table = Vec::new();
    let mut title = String::new();
    for (name, kind) in columns {
        for (what, value) in [("JSON", object as Value), ("random", random)] {
            title += &format!(" {name}, {what} |");
            table.push(run(options, kind, value).await);
        }
    }
    println!("\n| written to disk per byte of value |{title}\n|---|{}", "---|".repeat(table.len()));
    for (row, (name, _)) in table[0].iter().enumerate() {
        let cells: Vec<&str> = table.iter().map(|column| column[row].1.as_str()).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

async fn run(options: &Options, kind: Kind, value: Value) -> Vec<(&'static str, String)> {
    let path = options.directory.join("flash");
    let mut rows = Vec::new();
    let server = Server::start(kind, &path);
    let client = connect(&server).await;
    rows.push(("2,000 single puts of 1 KiB, empty store", per_byte(&server, &client, value, 2_000, 1).await));
    rows.push(("20,000 puts, 50 at once", per_byte(&server, &client, value, 20_000, 50).await));
    let before = server.written();
    fill(&client, value).await;
    let factor = (server.written() - before) as f64 / (OBJECTS * OBJECT_BYTES) as f64;
    rows.push(("100,000 new objects of 2 KiB, 100 at once", format!("{factor:.1}")));
    rows.push(("files, MiB", format!("{:.0}", mib(server.disk()))));
    drop(client);
    let path = server.stop().await;

    let server = Server::start(kind, &path);
    let client = connect(&server).await;
    rows.push(("MiB written by opening them", format!("{:.1}", mib(server.written()))));
    rows.push(("the first 100 single puts of 1 KiB", per_byte(&server, &client, value, 100, 1).await));
    rows.push(("the next 400", per_byte(&server, &client, value, 400, 1).await));
    rows.push(("the next 2,000", per_byte(&server, &client, value, 2_000, 1).await));
    rows.push(("20,000 puts, 50 at once", per_byte(&server, &client, value, 20_000, 50).await));
    let path = server.stop().await;
    let _ = std::fs::remove_dir_all(path);
    rows
}

/// Put so many values to some keys, so many at once.
async fn per_byte(server: &Server, client: &Client, value: Value, count: usize, at_once: usize) -> String {
    let before = server.written();
    let writes =
        (0..count).map(|number| client.put(format!("/registry/leases/l-{}", number % 200), value(number, BYTES)));
    stream::iter(writes).buffer_unordered(at_once).for_each(|()| future::ready(())).await;
    format!("{:.1}", (server.written() - before) as f64 / (count * BYTES) as f64)
}

async fn fill(client: &Client, value: Value) {
    let writes =
        (0..OBJECTS).map(|number| {
            let client = client.clone();
            async move {
                client.put(format!("/registry/pods/default/object-{number:06}"), value(number, OBJECT_BYTES)).await
            }
        });
    stream::iter(writes).buffer_unordered(100).for_each(|()| future::ready(())).await;
}
