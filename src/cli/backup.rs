//! `kedge backup`: one file with the store, certificates, tokens, manifests and configuration of a server.

use super::local::Place;
use crate::backup::{self, EXTENSION, Source};
use anyhow::Context;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Make a backup; the server may run.
    Save(Save),
    /// Show the backups in a directory, newest first.
    Ls(Ls),
    /// Put a backup in the place of this host's server files. The server must be stopped; it may be another host.
    Restore(Restore),
}

#[derive(clap::Args)]
struct Passphrase {
    /// File whose first line encrypts the backup.
    #[arg(long, env = "KEDGE_BACKUP_PASSPHRASE_FILE", value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl Passphrase {
    fn read(&self) -> anyhow::Result<Option<String>> {
        self.passphrase_file.as_deref().map(backup::passphrase).transpose()
    }
}

#[derive(clap::Args)]
struct Save {
    /// The file to write, or a directory for it [default: DATA-DIR/server/backups].
    output: Option<PathBuf>,

    #[command(flatten)]
    passphrase: Passphrase,

    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Ls {
    /// Where to look [default: DATA-DIR/server/backups].
    directory: Option<PathBuf>,

    #[command(flatten)]
    passphrase: Passphrase,

    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Restore {
    /// The backup.
    file: PathBuf,

    /// Move what is there aside.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    passphrase: Passphrase,

    #[command(flatten)]
    place: Place,
}

pub fn run(args: Args) -> anyhow::Result<i32> {
    match args.action {
        Verb::Save(args) => super::block_on(save(args)),
        Verb::Ls(args) => list(&args),
        Verb::Restore(args) => restore(&args),
    }
}

async fn save(args: Save) -> anyhow::Result<i32> {
    let place = &args.place;
    let passphrase = args.passphrase.read()?;
    let output = args.output.unwrap_or_else(|| backup::directory(&place.data_dir));
    let is_file = output.extension().is_some_and(|e| e == EXTENSION) && !output.is_dir();
    let path = if is_file { output } else { output.join(backup::file_name(&backup::host(&place.data_dir))) };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        crate::durable::create_dir(parent, 0o700).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let snapshot = path.with_extension("snapshot");
    let local = place.reach()?;
    let written = local.snapshot(&snapshot).await;
    local.close().await?;
    let saved = written.and_then(|()| {
        let source = Source { data_dir: &place.data_dir, config: &place.config, snapshot: &snapshot };
        backup::save(&source, &path, passphrase.as_deref())
    });
    let _ = std::fs::remove_file(&snapshot);
    let summary = saved?;
    println!("{} (revision {})", path.display(), summary.revision);
    Ok(0)
}

fn list(args: &Ls) -> anyhow::Result<i32> {
    let directory = args.directory.clone().unwrap_or_else(|| backup::directory(&args.place.data_dir));
    let passphrase = args.passphrase.read()?;
    let mut damaged = 0;
    for path in backup::list(&directory) {
        let mib = std::fs::metadata(&path)?.len() as f64 / f64::from(1 << 20);
        let sealed = backup::is_sealed(&path)?;
        let text = match backup::check(&path, passphrase.as_deref()) {
            Ok(summary) => {
                let encrypted = if sealed { ", encrypted" } else { "" };
                format!("{} of {}, revision {}{encrypted}", summary.time, summary.host, summary.revision)
            }
            Err(_) if sealed && passphrase.is_none() => "encrypted, not checked (--passphrase-file)".to_owned(),
            Err(error) => {
                damaged += 1;
                format!("DAMAGED: {error:#}")
            }
        };
        println!("{} ({mib:.1} MiB): {text}", path.display());
    }
    Ok(i32::from(damaged > 0))
}

fn restore(args: &Restore) -> anyhow::Result<i32> {
    let place = &args.place;
    let passphrase = args.passphrase.read()?;
    crate::durable::create_dir(&place.data_dir, 0o755)
        .with_context(|| format!("cannot use {}", place.data_dir.display()))?;
    let restored = backup::restore(&args.file, passphrase.as_deref(), &place.data_dir, &place.config, args.force)?;
    let summary = restored.summary;
    println!("restored the server of {} as of {} (revision {})", summary.host, summary.time, summary.revision);
    if let Some(before) = restored.before {
        println!("what was there before is in {}", before.display());
    }
    match restored.config {
        Some(config) if config == place.config => println!("its configuration is in {}", config.display()),
        Some(config) => println!("its configuration is in {}: compare it with this host's", config.display()),
        None => {}
    }
    println!("start the server; agents find it at its new address if their --server leads there");
    Ok(0)
}
