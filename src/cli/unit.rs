//! `kedge unit`: the systemd unit that belongs to this executable, for installers.

const UNIT: &str = include_str!("../../systemd/kedge.service");

#[derive(clap::Args)]
pub struct Args {
    /// What the host is.
    #[arg(value_parser = ["server", "agent"], default_value = "server")]
    role: String,
}

pub fn run(args: Args) -> anyhow::Result<i32> {
    print!("{}", UNIT.replace("/kedge server", &format!("/kedge {}", args.role)));
    Ok(0)
}
