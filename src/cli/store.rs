//! `kedge store`: care for the server's store, whether the server runs or not.

use super::flags;
use super::local::{Action, Local, Place};
use crate::backup::{self, Imported};
use crate::config::given_token;
use crate::store::etcd::Etcd;
use crate::store::snapshots::{self, format::Item};
use crate::store::{EventKind, KeyValue};
use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Read everything in the store and in its snapshots; fails when something is damaged. (Of a stopped server: opening
    /// the store repairs it, and says so.)
    Check(Place),
    /// Forget all history: reads and watches of older revisions are refused from now on.
    Compact(Place),
    /// Give space on disk back that nothing needs any more.
    Defrag(Place),
    /// Write all keys, one JSON object a line.
    Export(Export),
    /// Make the store of a stopped server out of what an etcd cluster holds.
    Import(Import),
}

#[derive(clap::Args)]
struct Export {
    /// Only keys that begin with this.
    #[arg(long, value_name = "KEY", default_value = "")]
    prefix: String,

    /// Where to write [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Import {
    /// Where the cluster's members listen: https://HOST:2379.
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    endpoints: Vec<String>,

    /// CA of its certificates.
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// Client certificate for it.
    #[arg(long, value_name = "FILE", requires_all = ["key", "cacert"])]
    cert: Option<PathBuf>,

    /// Key of that.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Move a store that is there already aside.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    token: flags::Token,

    #[command(flatten)]
    place: Place,
}

pub fn run(args: Args) -> anyhow::Result<i32> {
    super::block_on(async {
        match args.action {
            Verb::Check(place) => check(&place).await,
            Verb::Compact(place) => act(&place, Action::Compact).await,
            Verb::Defrag(place) => act(&place, Action::Defrag).await,
            Verb::Export(args) => export(&args).await,
            Verb::Import(args) => import(&args).await,
        }
    })
}

async fn act(place: &Place, action: Action) -> anyhow::Result<i32> {
    let local = place.reach()?;
    let (revision, compacted, bytes) = local.run(action).await?;
    println!("revision {revision}, compacted {compacted}, {:.1} MiB on disk", bytes as f64 / (1 << 20) as f64);
    local.close().await?;
    Ok(0)
}

/// A snapshot in a file that goes away.
async fn with_snapshot<T>(place: &Place, work: impl FnOnce(&Path) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let path = place.data_dir.join(format!("server/.snapshot-{}", std::process::id()));
    let local: Local = place.reach()?;
    let written = local.snapshot(&path).await;
    local.close().await?;
    let result = written.and_then(|()| work(&path));
    let _ = std::fs::remove_file(&path);
    result
}

async fn check(place: &Place) -> anyhow::Result<i32> {
    let summary = with_snapshot(place, |path| Ok(snapshots::check(path)?)).await.context("the store")?;
    println!("store       whole: revision {}, {} records", summary.revision, summary.records);
    let mut damaged = 0;
    for path in snapshots::list(&place.data_dir.join("server/db/snapshots")) {
        match snapshots::check(&path) {
            Ok(summary) => println!("snapshot    whole: revision {}, {} records", summary.revision, summary.records),
            Err(error) => {
                damaged += 1;
                println!("snapshot    DAMAGED: {}: {error}", path.display());
            }
        }
    }
    let losses = std::fs::read_to_string(place.data_dir.join("server/db/losses.json")).unwrap_or_default();
    for loss in serde_json::from_str::<Vec<crate::store::condition::Loss>>(&losses).unwrap_or_default() {
        println!("DATA LOST   {loss}");
    }
    if damaged > 0 {
        bail!("{damaged} snapshots are damaged; remove them, the next ones take their place");
    }
    Ok(0)
}

async fn export(args: &Export) -> anyhow::Result<i32> {
    with_snapshot(&args.place, |path| {
        let kvs = live(path, args.prefix.as_bytes())?;
        let out: Box<dyn Write> = match &args.output {
            Some(path) => Box::new(std::fs::File::create(path).with_context(|| path.display().to_string())?),
            None => Box::new(std::io::stdout().lock()),
        };
        let mut out = std::io::BufWriter::new(out);
        for kv in kvs.values() {
            serde_json::to_writer(&mut out, &line(kv))?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    })
    .await?;
    Ok(0)
}

async fn import(args: &Import) -> anyhow::Result<i32> {
    let client = args.cert.as_deref().zip(args.key.as_deref());
    let tls = args.cacert.as_deref().map(|ca| crate::client::etcd_tls(ca, client)).transpose()?;
    let etcd = Etcd::open(&args.endpoints, tls).await.context("the etcd cluster")?;
    let token = given_token(&args.token)?;
    let imported = backup::import(&*etcd, &args.place.data_dir, token.as_deref(), args.force).await?;
    let Imported { summary, before } = imported;
    println!(
        "{} keys and leases at revision {} are in {}",
        summary.records,
        summary.revision,
        args.place.data_dir.display()
    );
    if let Some(before) = before {
        println!("the store before is in {}", before.display());
    }
    Ok(0)
}

/// The keys that there are at the snapshot's revision.
fn live(path: &Path, prefix: &[u8]) -> anyhow::Result<BTreeMap<Vec<u8>, KeyValue>> {
    let mut reader = snapshots::open(path)?;
    let mut kvs = BTreeMap::new();
    while let Some(items) = reader.frame()? {
        for item in items {
            let Item::Write(write) = item else { continue };
            let key = write.kv.key.to_vec();
            match write.kind {
                EventKind::Put if key.starts_with(prefix) => drop(kvs.insert(key, write.kv)),
                EventKind::Put => {}
                EventKind::Delete => drop(kvs.remove(&key)),
            }
        }
    }
    Ok(kvs)
}

/// Values that are JSON stay readable; others (encrypted ones) are in base64.
fn line(kv: &KeyValue) -> Value {
    let mut line = json!({
        "key": String::from_utf8_lossy(&kv.key), "createRevision": kv.create_revision.0,
        "modRevision": kv.mod_revision.0, "version": kv.version,
    });
    match serde_json::from_slice::<Value>(&kv.value) {
        Ok(value) => line["value"] = value,
        Err(_) => line["base64"] = BASE64_STANDARD.encode(&kv.value).into(),
    }
    line
}
