//! The command line: one file per subcommand, one line in [`Command`]. Every flag is declared once, in [`flags`];
//! flag, `KEDGE_*` variable, configuration key, default and help derive from that declaration.

mod backup;
mod certificate;
mod check;
mod component;
mod daemon;
mod file;
pub mod flags;
mod kubectl;
mod local;
mod secrets_encrypt;
mod status;
mod store;
mod token;
mod uninstall;
mod unit;
mod version;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;

/// Kubernetes in one small program.
#[derive(Parser)]
#[command(name = "kedge", version = crate::VERSION, max_term_width = 110, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a server: API, controllers, scheduler, and (unless --disable-agent) this host as a node.
    Server(Box<flags::Server>),
    /// Join a cluster as a node, and run it.
    Agent(Box<flags::Agent>),
    /// Run one part alone, against any Kubernetes API.
    Component(component::Args),
    /// Show whether the cluster on this host is up: API, nodes, pods, store, memory.
    Status(status::Args),
    /// Run the kubectl on PATH with this cluster's kubeconfig.
    Kubectl(kubectl::Args),
    /// What hosts join the cluster with.
    Token(token::Args),
    /// When this host's certificates end, and new ones at once.
    Certificate(certificate::Args),
    /// Save a whole server in one file, and restore it, also on another host.
    Backup(backup::Args),
    /// Check, compact, defragment or export the server's store.
    Store(store::Args),
    /// Encryption of Secrets at rest: its state, and a new key.
    SecretsEncrypt(secrets_encrypt::Args),
    /// Check that this host can run kedge; every line that is not ok says what to do.
    Check(check::Args),
    /// Stop kedge and remove everything of it from this host (volumes stay unless --purge-volumes).
    Uninstall(uninstall::Args),
    /// Print the systemd unit that belongs to this executable.
    Unit(unit::Args),
    /// Print the version.
    Version,
}

/// Run the program with these arguments (the first is the program's name) and give the exit code.
pub fn run(args: Vec<OsString>) -> i32 {
    match parse(args) {
        Ok(command) => match dispatch(command) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("kedge: {error:#}");
                1
            }
        },
        Err(code) => code,
    }
}

/// Arguments, environment and (for `server` and `agent`) the configuration file to a command; on failure the exit code, with
/// the message already printed.
fn parse(args: Vec<OsString>) -> Result<Command, i32> {
    let shown = |error: clap::Error| {
        let _ = error.print();
        error.exit_code()
    };
    let matches = Cli::command().try_get_matches_from(&args).map_err(shown)?;
    let cli = Cli::from_arg_matches(&matches).map_err(shown)?;
    let (name, config, declared) = match &cli.command {
        Command::Server(flags) => ("server", &flags.file.config, flags::server()),
        Command::Agent(flags) => ("agent", &flags.file.config, flags::agent()),
        _ => return Ok(cli.command),
    };
    let Some(given) = matches.subcommand_matches(name) else { return Ok(cli.command) };
    let extra = file::arguments(config, given, &declared).map_err(|error| {
        eprintln!("kedge: {error:#}");
        2
    })?;
    if extra.is_empty() {
        return Ok(cli.command);
    }
    let all = args.into_iter().chain(extra.into_iter().map(OsString::from));
    Ok(Cli::try_parse_from(all).map_err(shown)?.command)
}

fn dispatch(command: Command) -> anyhow::Result<i32> {
    match command {
        Command::Server(flags) => daemon::server(*flags),
        Command::Agent(flags) => daemon::agent(*flags),
        Command::Component(args) => component::run(args),
        Command::Status(args) => status::run(args),
        Command::Kubectl(args) => kubectl::run(args),
        Command::Token(args) => token::run(args),
        Command::Certificate(args) => certificate::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Store(args) => store::run(args),
        Command::SecretsEncrypt(args) => secrets_encrypt::run(args),
        Command::Check(args) => check::run(args),
        Command::Uninstall(args) => uninstall::run(args),
        Command::Unit(args) => unit::run(args),
        Command::Version => version::run(),
    }
}

/// A current-thread runtime for the short commands.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
