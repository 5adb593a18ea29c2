//! `kedge secrets-encrypt`: encryption of Secrets at rest.

use crate::config::KUBECONFIG;
use crate::server::at_rest::{Status, endpoint::PATH};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Show the keys and how many Secrets are encrypted with the newest one.
    Status(Place),
    /// Make a new key; all Secrets are encrypted with it in the background.
    #[command(alias = "rotate-keys")]
    Rotate(Place),
}

#[derive(clap::Args)]
struct Place {
    /// The cluster's admin kubeconfig.
    #[arg(long, env = "KEDGE_WRITE_KUBECONFIG", value_name = "FILE", default_value = KUBECONFIG)]
    kubeconfig: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<i32> {
    super::block_on(async {
        let (place, method) = match args.action {
            Verb::Status(place) => (place, http::Method::GET),
            Verb::Rotate(place) => (place, http::Method::POST),
        };
        let request = http::Request::builder().method(method).uri(PATH).body(Vec::new())?;
        let status: Status = crate::client::https(&place.kubeconfig)?.request(request).await?;
        println!("secrets     {} of {} encrypted with the newest key", status.current, status.secrets);
        for (number, key) in status.keys.iter().enumerate() {
            println!("key         {key}{}", if number == 0 { " (encrypts)" } else { "" });
        }
        Ok(0)
    })
}
