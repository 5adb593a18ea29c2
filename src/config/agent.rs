//! `kedge agent`.

use super::Node;
use crate::cli::flags;
use crate::join::token::{self, Digest, Token};
use anyhow::{Context, bail, ensure};

/// Parts that `--disable` knows on an agent.
const PARTS: &[&str] = &["kubelet", "proxy", "dns"];

/// Port of a server whose address names none.
const SERVER_PORT: u16 = 6443;

/// Everything `kedge agent` needs to know, checked.
#[derive(Clone, Debug)]
pub struct Agent {
    pub node: Node,
    pub server: ServerUrl,
    /// None: this host must have joined before.
    pub token: Option<Token>,
    /// One of these is the SHA-256 of the SubjectPublicKeyInfo of the server's CA; empty: not asked for.
    pub ca_hashes: Vec<Digest>,
}

impl Agent {
    /// Check the flags. Makes the data directory (the node's name is kept there).
    pub fn from_flags(flags: flags::Agent) -> anyhow::Result<Self> {
        let server = flags.server.context("--server is missing: the address of the server, https://HOST:6443")?;
        let hash = |text: &String| {
            token::public_key_hash(text).with_context(|| format!("--discovery-token-ca-cert-hash {text}"))
        };
        let token = given_token(&flags.token)?.map(|text| Token::parse(&text).context("--token")).transpose()?;
        Ok(Agent {
            server: ServerUrl::parse(&server).with_context(|| format!("--server {server}"))?,
            token,
            ca_hashes: flags.discovery_token_ca_cert_hash.iter().map(hash).collect::<Result<_, _>>()?,
            node: Node::from_flags(flags.host, flags.node, PARTS)?,
        })
    }
}

/// What `--token` or the file of `--token-file` says.
pub fn given_token(flags: &flags::Token) -> anyhow::Result<Option<String>> {
    let Some(file) = &flags.token_file else { return Ok(flags.token.clone()) };
    let text =
        std::fs::read_to_string(file).with_context(|| format!("--token-file {}: cannot read it", file.display()))?;
    Ok(Some(text.trim().to_owned()))
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Name or address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

impl ServerUrl {
    /// `https://HOST:PORT`, also without scheme or port.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim().trim_end_matches('/');
        ensure!(!text.starts_with("http://"), "the server speaks only https; write https://…");
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let authority: http::uri::Authority = rest.parse().context("expected https://HOST:6443")?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || authority.as_str().contains('@') {
            bail!("expected https://HOST:6443");
        }
        Ok(ServerUrl { host, port: authority.port_u16().unwrap_or(SERVER_PORT) })
    }
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for (text, url) in [
            ("https://10.0.0.1:7443", "https://10.0.0.1:7443"),
            ("https://box.example.org/", "https://box.example.org:6443"),
            ("box", "https://box:6443"),
            ("https://[2001:db8::1]:6443", "https://[2001:db8::1]:6443"),
        ] {
            assert_eq!(ServerUrl::parse(text).unwrap().to_string(), url, "{text}");
        }
        for bad in ["", "http://a", "https://a/b", "https://u@a", "https://:6443"] {
            assert!(ServerUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
