//! `kedge server` and `kedge agent`: logging, checked configuration, runtime, signals; the parts are started by
//! [`crate::start`].

use super::flags;
use crate::config::{self, RUN_DIR};
use crate::start;
use crate::task::Group;
use anyhow::{Context, bail};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

/// How long parts may take to finish after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What server and agent are called in a run directory.
pub const MAIN: &str = "kedge";

/// Worker threads: enough for two busy cores of an edge board, few enough to stay small on large hosts.
const MAX_WORKERS: usize = 4;

pub fn server(flags: flags::Server) -> anyhow::Result<i32> {
    log(&flags.host.log)?;
    again(|| {
        let config = config::Server::from_flags(flags.clone())?;
        run(&config.node.run_dir.clone(), async move |root| start::server(&config, root).await)
    })
}

pub fn agent(flags: flags::Agent) -> anyhow::Result<i32> {
    log(&flags.host.log)?;
    again(|| {
        let config = config::Agent::from_flags(flags.clone())?;
        run(&config.node.run_dir.clone(), async move |root| start::agent(&config, root).await)
    })
}

/// Run, and again for as long as a run ends for that.
fn again(once: impl Fn() -> anyhow::Result<i32>) -> anyhow::Result<i32> {
    loop {
        match once() {
            Err(error) if error.is::<start::Again>() => info!("{error}"),
            ended => return ended,
        }
    }
}

/// A part of it alone. `place`: a run directory and the part's name there, for parts that belong to a host and run once
/// on it.
pub fn part<S>(log_flags: &flags::Log, place: Option<(&Path, &str)>, start: S) -> anyhow::Result<i32>
where
    S: AsyncFnOnce(&Group) -> anyhow::Result<start::Running>,
{
    log(log_flags)?;
    let _pid = place.map(|(run_dir, name)| PidFile::take(run_dir, name)).transpose()?;
    run_parts(start)
}

/// Run the parts until they are told to stop.
fn run<S>(run_dir: &Path, start: S) -> anyhow::Result<i32>
where
    S: AsyncFnOnce(&Group) -> anyhow::Result<start::Running>,
{
    let _pid = PidFile::take(run_dir, MAIN)?;
    run_parts(start)
}

fn run_parts<S>(start: S) -> anyhow::Result<i32>
where
    S: AsyncFnOnce(&Group) -> anyhow::Result<start::Running>,
{
    raise_file_limit();
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get()).clamp(1, MAX_WORKERS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(32)
        .thread_stack_size(1024 * 1024)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let served = runtime.block_on(serve(start));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map(|()| 0)
}

/// Start everything, report readiness, wait for a signal or a fatal error, stop in order.
async fn serve<S>(start: S) -> anyhow::Result<()>
where
    S: AsyncFnOnce(&Group) -> anyhow::Result<start::Running>,
{
    let root = Group::root();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let started = tokio::select! {
        result = start(&root) => result,
        () = root.cancelled() => return root.join(STOP_GRACE).await,
        _ = tokio::signal::ctrl_c() => return root.join(STOP_GRACE).await,
        _ = terminate.recv() => return root.join(STOP_GRACE).await,
    };
    let running = match started {
        Ok(running) => running,
        Err(error) => {
            let _ = root.join(STOP_GRACE).await;
            return Err(error);
        }
    };
    notify("READY=1");
    tokio::select! {
        () = root.cancelled() => {}
        _ = tokio::signal::ctrl_c() => {
            info!("stopping on interrupt; pods go on");
            notify("STOPPING=1");
        }
        _ = terminate.recv() => {
            notify("STOPPING=1");
            info!("stopping on SIGTERM; pods go on, unless the machine stops");
            running.before_stop().await;
        }
    }
    let result = root.join(STOP_GRACE).await;
    running.close().await;
    result
}

fn log(flags: &flags::Log) -> anyhow::Result<()> {
    let level = flags.log_level.as_str();
    // Libraries speak only when something is wrong.
    let quiet = "warn,kedge";
    let directives = if level.contains(['=', ',']) { level.to_owned() } else { format!("{quiet}={level}") };
    let filter = EnvFilter::try_new(&directives).with_context(|| format!("--log-level {level}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match flags.log_format.as_str() {
        "json" => builder.json().init(),
        _ => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
    }
    Ok(())
}

/// Watches, streams and containers' logs each hold a descriptor; the soft limit of 1024 is too small.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_err()
    {
        warn!(soft, "cannot raise the limit of open files");
    }
}

/// Tell systemd (Type=notify); nothing where there is none.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let sent = match path.to_str().and_then(|p| p.strip_prefix('@')) {
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            std::os::unix::net::SocketAddr::from_abstract_name(name)
                .and_then(|address| socket.send_to_addr(state.as_bytes(), &address))
        }
        None => socket.send_to(state.as_bytes(), &path),
    };
    if let Err(error) = sent {
        warn!(%error, "cannot notify systemd");
    }
}

/// The pid of the running server, locked for as long as it lives (the lock, not the number, is the truth).
struct PidFile {
    _file: nix::fcntl::Flock<std::fs::File>,
    path: PathBuf,
}

impl PidFile {
    fn take(run_dir: &Path, name: &str) -> anyhow::Result<Self> {
        use std::io::Write;
        crate::durable::create_dir(run_dir, 0o755)
            .with_context(|| format!("cannot use the run directory {}", run_dir.display()))?;
        let path = pid_file(run_dir, name);
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).read(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let locked = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock);
        let Ok(mut locked) = locked else {
            let pid = std::fs::read_to_string(&path).unwrap_or_default();
            bail!("{name} runs already in {} (pid {})", run_dir.display(), pid.trim());
        };
        locked.set_len(0)?;
        writeln!(locked, "{}", std::process::id())?;
        Ok(PidFile { _file: locked, path })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn pid_file(run_dir: &Path, name: &str) -> PathBuf {
    run_dir.join(name).with_extension("pid")
}

/// The pid of the server or agent, or of the part with this name, that runs in a run directory.
pub fn running(run_dir: &Path, name: &str) -> Option<i32> {
    let path = pid_file(run_dir, name);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).ok()?;
    match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
        Ok(_) => None,
        Err(_) => std::fs::read_to_string(&path).ok()?.trim().parse().ok(),
    }
}

/// Whether the server of the default run directory runs.
pub fn is_running() -> bool {
    running(Path::new(RUN_DIR), MAIN).is_some()
}
