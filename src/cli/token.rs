//! `kedge token`: what hosts join with. Bootstrap tokens are Secrets in kube-system, as kubeadm makes them; the node
//! token is the server's own.

use crate::client;
use crate::config::{DATA_DIR, KUBECONFIG};
use crate::join::token::{self, Token};
use crate::server::authn::bootstrap_token::{NAMESPACE, NODE_GROUP, SECRET_PREFIX, SECRET_TYPE, is_allowed, split};
use crate::server::join::NodeToken;
use anyhow::{Context, bail, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Make a bootstrap token and print it.
    Create(Create),
    /// Show the bootstrap tokens.
    List(Place),
    /// Remove bootstrap tokens.
    Delete(Delete),
    /// Change the node token of this server; nodes that have joined stay.
    Rotate(Rotate),
}

/// Whose tokens.
#[derive(clap::Args)]
struct Place {
    /// The cluster's admin kubeconfig.
    #[arg(long, env = "KEDGE_WRITE_KUBECONFIG", value_name = "FILE", default_value = KUBECONFIG)]
    kubeconfig: PathBuf,
}

#[derive(clap::Args)]
struct Create {
    /// The token, ID.SECRET ([a-z0-9]{6}.[a-z0-9]{16}) [default: a random one].
    token: Option<String>,

    /// How long it is good: 30m, 24h, 7d; 0: for ever.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    ttl: String,

    /// What it is for, in your words.
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,

    /// What it may be used for.
    #[arg(long, value_name = "USAGE", value_delimiter = ',', default_values = ["authentication", "signing"],
          value_parser = ["authentication", "signing"])]
    usages: Vec<String>,

    /// Groups of who comes with it.
    #[arg(long, value_name = "GROUP", value_delimiter = ',', default_values = [NODE_GROUP])]
    groups: Vec<String>,

    /// Print the whole command for the other host instead of the token alone.
    #[arg(long)]
    print_join_command: bool,

    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Delete {
    /// Tokens or their ids.
    #[arg(required = true, value_name = "ID")]
    tokens: Vec<String>,

    #[command(flatten)]
    place: Place,
}

#[derive(clap::Args)]
struct Rotate {
    #[arg(long, env = "KEDGE_DATA_DIR", value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,

    /// Its configuration, which must not fix the token.
    #[arg(long, env = "KEDGE_CONFIG", value_name = "FILE", default_value = crate::config::CONFIG_FILE)]
    config: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<i32> {
    match args.action {
        Action::Create(args) => super::block_on(create(args)),
        Action::List(place) => super::block_on(list(place)),
        Action::Delete(args) => super::block_on(delete(args)),
        Action::Rotate(args) => rotate(args),
    }?;
    Ok(0)
}

impl Place {
    fn secrets(&self) -> anyhow::Result<Api<Secret>> {
        if !self.kubeconfig.exists() {
            bail!("{} does not exist; run this on the server, or give --kubeconfig", self.kubeconfig.display());
        }
        Ok(Api::namespaced(client::https(&self.kubeconfig)?, NAMESPACE))
    }
}

async fn create(args: Create) -> anyhow::Result<()> {
    let token = args.token.unwrap_or_else(random);
    let Some((id, secret)) = split(&token) else {
        bail!("{token:?} is no bootstrap token: six and sixteen of a-z and 0-9 with a point between them");
    };
    if let Some(group) = args.groups.iter().find(|g| !is_allowed(g)) {
        bail!("--groups {group}: groups of tokens begin with system:bootstrappers:");
    }
    let seconds = seconds(&args.ttl).with_context(|| format!("--ttl {}: expected 30m, 24h, 7d or 0", args.ttl))?;
    let mut data = json!({
        "token-id": id, "token-secret": secret, "auth-extra-groups": args.groups.join(","),
    });
    for usage in &args.usages {
        data[format!("usage-bootstrap-{usage}")] = "true".into();
    }
    if !args.description.is_empty() {
        data["description"] = args.description.into();
    }
    if seconds > 0 {
        let end = jiff::Timestamp::from_second(crate::time::now_seconds() + seconds).context("--ttl is too long")?;
        data["expiration"] = crate::time::rfc3339(end).into();
    }
    let object = json!({"metadata": {"name": format!("{SECRET_PREFIX}{id}")}, "type": SECRET_TYPE, "stringData": data});
    let made = args.place.secrets()?.create(&PostParams::default(), &serde_json::from_value(object)?).await;
    match made {
        Err(kube::Error::Api(status)) if status.is_already_exists() => bail!("there is a token {id} already"),
        other => drop(other.context("the token cannot be made")?),
    }
    match args.print_join_command {
        true => println!("{}", join_command(&args.place.kubeconfig, &token)?),
        false => println!("{token}"),
    }
    Ok(())
}

/// What to type on the other host: the kubeconfig says where the server is and which CA it has.
fn join_command(kubeconfig: &std::path::Path, token: &str) -> anyhow::Result<String> {
    let (server, ca) = client::cluster_of(kubeconfig)?;
    let ca = ca.context("the kubeconfig names no certificate-authority")?;
    Ok(format!("kedge agent --server {server} --token {}", token::pin(&ca, token)?))
}

fn random() -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let text = |n| -> String { (0..n).map(|_| LETTERS[rand::random_range(0..LETTERS.len())] as char).collect() };
    format!("{}.{}", text(6), text(16))
}

/// `1h30m`, `24h`, `7d`, `90s`, `0` in seconds.
fn seconds(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let (mut total, mut number) = (0i64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(std::mem::take(&mut number).parse::<i64>().ok()?.checked_mul(unit)?)?;
    }
    (number.is_empty() && total > 0).then_some(total)
}

async fn list(place: Place) -> anyhow::Result<()> {
    let params = ListParams::default().fields(&format!("type={SECRET_TYPE}"));
    let found = place.secrets()?.list(&params).await.context("the tokens cannot be read")?;
    let head = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned);
    let now = crate::time::now_seconds();
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(found.items.iter().map(|s| row(s, now))).collect();
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("   ").trim_end());
    }
    Ok(())
}

/// One token as kubeadm shows it.
fn row(secret: &Secret, now_seconds: i64) -> [String; 6] {
    let data = |key: &str| -> String {
        let bytes = secret.data.as_ref().and_then(|d| d.get(key));
        bytes.map(|ByteString(b)| String::from_utf8_lossy(b).into_owned()).unwrap_or_default()
    };
    let end = data("expiration");
    let ttl = match crate::time::parse_seconds(&end) {
        None => "<forever>".to_owned(),
        Some(end) if end <= now_seconds => "<expired>".to_owned(),
        Some(end) => crate::time::human_duration(end - now_seconds),
    };
    let used = |usage: &&str| data(&format!("usage-bootstrap-{usage}")) == "true";
    let usages: Vec<&str> = ["authentication", "signing"].into_iter().filter(used).collect();
    let or = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
    let token = format!("{}.{}", data("token-id"), data("token-secret"));
    [token, ttl, or(end, "<never>"), usages.join(","), or(data("description"), "<none>"), data("auth-extra-groups")]
}

async fn delete(args: Delete) -> anyhow::Result<()> {
    let secrets = args.place.secrets()?;
    for given in &args.tokens {
        let token = Token::parse(given)?.secret;
        let id = token.split('.').next().unwrap_or_default();
        match secrets.delete(&format!("{SECRET_PREFIX}{id}"), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => bail!("there is no token {id}"),
            other => drop(other.with_context(|| format!("token {id} cannot be removed"))?),
        }
        println!("token {id} is gone");
    }
    Ok(())
}

fn rotate(args: Rotate) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.config).unwrap_or_default();
    let fixed = |line: &str| ["token:", "token-file:", "agent-token:"].iter().any(|key| line.starts_with(key));
    ensure!(
        !text.lines().any(fixed),
        "{} fixes the token, so the next start would bring it back: change it there, and restart the server",
        args.config.display()
    );
    println!("{}", NodeToken::rotate(&args.data_dir)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_tokens() {
        for (text, want) in [
            ("0", Some(0)),
            ("90s", Some(90)),
            ("1h30m", Some(5400)),
            ("7d", Some(604_800)),
            ("", None),
            ("5", None),
            ("-1h", None),
            ("h", None),
            ("1y", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(seconds(text), want, "{text}");
        }
        let token = random();
        assert!(split(&token).is_some(), "{token}");
    }

    #[test]
    fn rows_as_kubeadm_shows_them() {
        let secret = |expiration: &str| -> Secret {
            let mut data = std::collections::BTreeMap::new();
            for (key, value) in [
                ("token-id", "abcdef"),
                ("token-secret", "0123456789abcdef"),
                ("usage-bootstrap-signing", "true"),
                ("usage-bootstrap-authentication", "false"),
                ("expiration", expiration),
            ] {
                data.insert(key.to_owned(), ByteString(value.into()));
            }
            Secret { data: Some(data), ..Default::default() }
        };
        let now = crate::time::parse_seconds("2026-01-01T00:00:00Z").unwrap();
        for (end, ttl) in [("", "<forever>"), ("2026-01-01T03:00:00Z", "3h"), ("2025-01-01T00:00:00Z", "<expired>")] {
            let row = row(&secret(end), now);
            assert_eq!((row[0].as_str(), row[1].as_str()), ("abcdef.0123456789abcdef", ttl));
            assert_eq!((row[3].as_str(), row[4].as_str()), ("signing", "<none>"));
        }
    }
}
