//! `kedge certificate`: what certificates this host has and when they end; new ones at once.

use super::daemon;
use crate::config::{DATA_DIR, RUN_DIR};
use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Show every certificate with its end; fails when one has ended.
    Check(Place),
    /// Have the running kedge renew all of its certificates now (not the CAs); nothing is interrupted.
    Rotate(Place),
}

#[derive(clap::Args)]
struct Place {
    #[arg(long, env = "KEDGE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,

    #[arg(long, env = "KEDGE_RUN_DIR", value_name = "DIR", default_value = RUN_DIR)]
    run_dir: PathBuf,
}

/// How long a rotation may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A certificate that ends within this many days should have been renewed long ago.
const SOON_DAYS: i64 = 30;

pub fn run(args: Args) -> anyhow::Result<i32> {
    match args.action {
        Action::Check(place) => check(&place),
        Action::Rotate(place) => rotate(&place),
    }
}

/// A certificate on disk.
#[derive(Debug, PartialEq)]
pub struct Found {
    /// `server/tls/client-admin`
    pub name: String,
    pub subject: String,
    /// Unix seconds.
    pub start: i64,
    pub end: i64,
    pub serial: String,
}

impl Found {
    pub fn is_ca(&self) -> bool {
        self.name.ends_with("-ca")
    }

    /// `ends 2027-01-01T00:00:00Z, in 364d`
    pub fn life(&self, now_seconds: i64) -> String {
        let end = jiff::Timestamp::from_second(self.end).map(crate::time::rfc3339).unwrap_or_default();
        let left = self.end - now_seconds;
        let soon = if left < SOON_DAYS * 86_400 && self.end - self.start > 2 * SOON_DAYS * 86_400 {
            " (renewal is overdue: see the log)"
        } else {
            ""
        };
        match left {
            ..=0 => format!("ENDED {end}"),
            _ => format!("ends {end}, in {}{soon}", crate::time::human_duration(left)),
        }
    }
}

/// All certificates below a data directory, in order of their names.
pub fn found(data_dir: &Path) -> Vec<Found> {
    let mut all = Vec::new();
    for dir in ["server/tls", "agent/pki"] {
        let files = std::fs::read_dir(data_dir.join(dir)).into_iter().flatten().flatten().map(|e| e.path());
        let certificates = files.filter(|p| p.extension().is_some_and(|e| e == "crt"));
        all.extend(certificates.filter_map(|path| {
            let stem = path.file_stem()?.to_string_lossy().into_owned();
            read(&path, format!("{dir}/{stem}"))
        }));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn read(path: &Path, name: String) -> Option<Found> {
    let der = CertificateDer::from_pem_file(path).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).ok()?;
    let subject = parsed.subject().iter_common_name().next().and_then(|c| c.as_str().ok()).unwrap_or_default();
    let validity = parsed.validity();
    Some(Found {
        name,
        subject: subject.to_owned(),
        start: validity.not_before.timestamp(),
        end: validity.not_after.timestamp(),
        serial: parsed.raw_serial_as_string(),
    })
}

fn check(place: &Place) -> anyhow::Result<i32> {
    let found = found(&place.data_dir);
    if found.is_empty() {
        bail!("there are no certificates in {}; run this as root on a server or an agent", place.data_dir.display());
    }
    let now = crate::time::now_seconds();
    let width = found.iter().map(|f| f.name.len()).max().unwrap_or(0);
    for one in &found {
        println!("{:<width$}  {}  ({})", one.name, one.life(now), one.subject);
    }
    let ended = found.iter().filter(|f| f.end <= now).count();
    if ended > 0 {
        println!("{ended} ended: a running kedge renews them by itself; start it, or see its log");
    }
    Ok(i32::from(ended > 0))
}

fn rotate(place: &Place) -> anyhow::Result<i32> {
    let leaves = || -> Vec<Found> { found(&place.data_dir).into_iter().filter(|f| !f.is_ca()).collect() };
    let before = leaves();
    let Some(pid) = daemon::running(&place.run_dir, daemon::MAIN) else {
        bail!(
            "kedge does not run here ({}); certificates that are due are renewed when it starts",
            place.run_dir.display()
        );
    };
    kill(Pid::from_raw(pid), Signal::SIGUSR1).context("cannot signal the running kedge")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let old = |f: &Found| before.iter().any(|b| b.name == f.name && b.serial == f.serial);
        let left: Vec<String> = leaves().into_iter().filter(old).map(|f| f.name).collect();
        if left.is_empty() {
            println!("{} certificates are new", before.len());
            return Ok(0);
        }
        if Instant::now() > deadline {
            bail!("still the old one: {}; see kedge's log", left.join(", "));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
