//! Rates and times, etcd beside kedge.

use crate::client::{Client, Watches, connect};
use crate::server::{Kind, Server, etcd_version, has_etcd, open};
use crate::{Options, median, millis, object};
use futures::future;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const CLIENTS: usize = 50;
const WATCHES: usize = 10_000;
const WATCH_STREAMS: usize = 10;
const LIST: usize = 10_000;
const LIST_BYTES: usize = 2048;
const PAGE: usize = 500;
const OBJECTS: usize = 100_000;
const PODS: &str = "/registry/pods/default/";
const MORE: &str = "/registry/configmaps/default/";
const ALL: &str = "/registry/";

/// What is measured, how.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Served(Kind),
    InProcess,
}

/// One figure, with its unit behind the name.
struct Figure {
    name: &'static str,
    value: f64,
}

fn more_is_better(name: &str) -> bool {
    name.ends_with("/s")
}

pub async fn measure(options: &Options) {
    let mut targets = vec![Target::Served(Kind::Kedge), Target::InProcess];
    if has_etcd() {
        println!("compared with {}", etcd_version());
        targets.insert(0, Target::Served(Kind::Etcd));
    } else {
        println!("NOT COMPARED with etcd: there is none on the PATH");
    }
    let mut all: Vec<Vec<Vec<Figure>>> = targets.iter().map(|_| Vec::new()).collect();
    for round in 0..options.rounds {
        for (target, figures) in targets.iter().zip(&mut all) {
            let path = options.directory.join(format!("speed-{round}"));
            figures.push(run(*target, &path).await);
            let _ = std::fs::remove_dir_all(&path);
        }
    }
    let columns: Vec<Vec<f64>> = all.iter().map(|rounds| medians(rounds)).collect();
    let names: Vec<&str> = all[0][0].iter().map(|figure| figure.name).collect();
    table(&targets, &names, &columns, options.rounds);
}

fn medians(rounds: &[Vec<Figure>]) -> Vec<f64> {
    (0..rounds[0].len()).map(|row| median(rounds.iter().map(|figures| figures[row].value).collect())).collect()
}

fn table(targets: &[Target], names: &[&str], columns: &[Vec<f64>], rounds: usize) {
    let title = |target: &Target| match target {
        Target::Served(Kind::Etcd) => "etcd",
        Target::Served(Kind::Kedge) => "kedge, gRPC",
        Target::InProcess => "kedge, in process",
    };
    let titles: Vec<&str> = targets.iter().map(title).collect();
    let compared = targets[0] == Target::Served(Kind::Etcd);
    let ratio = if compared { " kedge by gRPC against etcd |" } else { "" };
    println!("\n| median of {rounds} | {} |{ratio}", titles.join(" | "));
    println!("|---|{}", "---|".repeat(columns.len() + usize::from(compared)));
    for (row, name) in names.iter().enumerate() {
        let cells: Vec<String> = columns.iter().map(|column| number(column[row])).collect();
        let (etcd, kedge) = (columns[0][row], columns[usize::from(compared)][row]);
        let times = if more_is_better(name) { kedge / etcd } else { etcd / kedge };
        let verdict = match compared {
            true if times >= 1.0 => format!(" {times:.1} x better |"),
            true => format!(" **{:.1} x worse** |", 1.0 / times),
            false => String::new(),
        };
        println!("| {name} | {} |{verdict}", cells.join(" | "));
    }
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

async fn run(target: Target, path: &Path) -> Vec<Figure> {
    let mut figures = Vec::new();
    match target {
        Target::Served(kind) => {
            let server = Server::start(kind, path);
            let clients = connections(&server).await;
            common(&mut figures, &clients).await;
            drop(clients);
            let path = server.stop().await;
            figures.push(Figure { name: RESTART, value: restart(kind, &path).await });
            figures.push(Figure { name: RESTART_KILLED, value: restart(kind, &path).await });
        }
        Target::InProcess => {
            let store = open(path);
            common(&mut figures, &vec![Client::Direct(store.clone()); CLIENTS]).await;
            store.close().await.expect("closes");
            drop(store);
            for name in [RESTART, RESTART_KILLED] {
                let before = Instant::now();
                let store = open(path);
                figures.push(Figure { name, value: millis(before.elapsed()) });
                store.close().await.expect("closes");
            }
        }
    }
    figures
}

const RESTART: &str = "restart with 100,000 objects, to the first answer, ms";
const RESTART_KILLED: &str = "the same after kill -9 (in process: opened again), ms";

async fn connections(server: &Server) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(server).await);
    }
    clients
}

/// From the start to the first answer; it is killed then.
async fn restart(kind: Kind, path: &Path) -> f64 {
    let before = Instant::now();
    let server = Server::start(kind, path);
    let client = connect(&server).await;
    let took = before.elapsed();
    assert_eq!(client.get(&format!("{PODS}object-000001")).await, 1, "its objects are there");
    server.kill().await;
    millis(took)
}

async fn common(figures: &mut Vec<Figure>, clients: &[Client]) {
    let mut add = |name: &'static str, value: f64| figures.push(Figure { name, value });
    let one = &clients[..1];

    let puts =
        |client: Client, at: usize, n: usize| put(client, (format!("/registry/leases/l-{at}-{}", n % 20), n), 1024);
    let (rate, p99) = many(one, 3_000, puts).await;
    add("durable puts of 1 KiB, 1 client, /s", rate);
    add("their 99th percentile, ms", p99);
    let (rate, p99) = many(clients, 20_000, puts).await;
    add("durable puts of 1 KiB, 50 clients, /s", rate);
    add("their 99th percentile, ms", p99);

    let get = |client: Client, at: usize, n: usize| async move {
        assert_eq!(client.get(&format!("/registry/leases/l-{at}-{}", n % 20)).await, 1);
    };
    add("gets of 1 KiB, 1 client, /s", many(one, 10_000, get).await.0);
    add("gets of 1 KiB, 50 clients, /s", many(clients, 40_000, get).await.0);

    fill(clients, PODS, LIST).await;
    let range = |client: Client, _: usize, n: usize| async move {
        // Object numbers of six digits: a prefix of four has 100 of them.
        assert_eq!(client.list(&format!("{PODS}object-{:04}", n % 100)).await.0, 100);
    };
    add("ranges of 100 keys x 2 KiB, 1 client, /s", many(one, 500, range).await.0);
    add("ranges of 100 keys x 2 KiB, 50 clients, /s", many(clients, 2_000, range).await.0);
    add("list of 10,000 keys x 2 KiB, ms", list(&clients[0], usize::MAX).await);
    add("the same in pages of 500, ms", list(&clients[0], PAGE).await);

    add("10,000 watches opened, ms", watchers(clients, |n| format!("/registry/watched/{n:05}")).await.0);
    let watches = watchers(clients, |n| format!("/registry/watched/{n:05}")).await.1;
    let put_all = async {
        many(clients, WATCHES / CLIENTS * CLIENTS, |client, at, n| {
            put(client, (format!("/registry/watched/{:05}", at * (WATCHES / CLIENTS) + n), n), 1024)
        })
        .await
    };
    add("10,000 watches of a key each: puts delivered, /s", deliver(watches, put_all, 1).await);
    let watches = watchers(clients, |_| "/registry/shared/".into()).await.1;
    let put_few = many(one, 20, |client, _, n| put(client, (format!("/registry/shared/{n}"), n), 1024));
    add("10,000 watches of one prefix: events delivered, /s", deliver(watches, put_few, 20).await);

    add("durable puts of 2 KiB, 50 clients, new keys, /s", fill(clients, MORE, OBJECTS - LIST).await);
    let before = Instant::now();
    clients[0].list_in_pages(ALL, PAGE).await;
    add("list of 100,000 keys in pages of 500, ms", millis(before.elapsed()));
}

async fn put(client: Client, (key, number): (String, usize), bytes: usize) {
    client.put(key, object(number, bytes)).await;
}

/// Have all clients together do something so many times, each one after another. Gives the rate, and the 99th
/// percentile in ms.
async fn many<F, Fut>(clients: &[Client], count: usize, work: F) -> (f64, f64)
where
    F: Fn(Client, usize, usize) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let each = count / clients.len();
    let before = Instant::now();
    let mut tasks = JoinSet::new();
    for (at, client) in clients.iter().cloned().enumerate() {
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(each);
            for number in 0..each {
                let before = Instant::now();
                work(client.clone(), at, number).await;
                times.push(before.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    let took = before.elapsed();
    times.sort_unstable();
    (times.len() as f64 / took.as_secs_f64(), millis(times[times.len() * 99 / 100]))
}

/// New keys from every client at once. Gives the rate.
async fn fill(clients: &[Client], prefix: &'static str, count: usize) -> f64 {
    let each = count / clients.len();
    let new = move |client: Client, at: usize, n: usize| {
        let number = at * each + n;
        put(client, (format!("{prefix}object-{number:06}"), number), LIST_BYTES)
    };
    many(clients, count, new).await.0
}

/// Mean time of a list of the pods.
async fn list(client: &Client, page: usize) -> f64 {
    const TIMES: u32 = 5;
    let before = Instant::now();
    for _ in 0..TIMES {
        let (count, bytes) =
            if page == usize::MAX { client.list(PODS).await } else { client.list_in_pages(PODS, page).await };
        assert_eq!((count, bytes), (LIST, LIST * LIST_BYTES));
    }
    millis(before.elapsed() / TIMES)
}

/// All watches, on a few streams. Gives the time it took, too.
async fn watchers(clients: &[Client], prefix: impl Fn(usize) -> String) -> (f64, Vec<Watches>) {
    let each = WATCHES / WATCH_STREAMS;
    let before = Instant::now();
    let streams = clients.iter().take(WATCH_STREAMS).enumerate().map(|(at, client)| {
        let (client, prefixes) = (client.clone(), (0..each).map(|n| prefix(at * each + n)).collect());
        async move { client.watch(prefixes).await }
    });
    let watches = future::join_all(streams.collect::<Vec<_>>()).await;
    (millis(before.elapsed()), watches)
}

/// Events that watches were given in a second while something was written.
async fn deliver(watches: Vec<Watches>, write: impl Future<Output = (f64, f64)>, each: usize) -> f64 {
    let before = Instant::now();
    let mut takers = JoinSet::new();
    watches.into_iter().for_each(|watches| drop(takers.spawn(watches.take(each, WATCHES / WATCH_STREAMS))));
    future::join(write, takers.join_all()).await;
    (WATCHES * each) as f64 / before.elapsed().as_secs_f64()
}
