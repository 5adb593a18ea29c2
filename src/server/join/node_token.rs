//! The secret that any node may join with: `<data-dir>/server/node-token`, in the form that pins our CA, mode 0600. The
//! file is the truth: whoever writes another one (`kedge token rotate`) changes the token of the running server.

use crate::durable;
use crate::join::token::{self, Token};
use crate::server::authn::TokenAuthenticator;
use crate::server::request::UserInfo;
use crate::status::Result as ApiResult;
use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};

/// Name of whoever has the token: may ask for a node's certificate and read the cluster's settings, nothing else.
const USER: &str = "kedge:join";
/// `system:node-bootstrapper` and automatic approval hang on the last of them, as in clusters made by kubeadm.
const GROUPS: [&str; 3] = [
    "system:bootstrappers",
    "system:bootstrappers:kedge:default-node-token",
    "system:bootstrappers:kubeadm:default-node-token",
];
/// Random bytes in a token of our making.
const SECRET_BYTES: usize = 16;

/// Where a server with this data directory keeps the token.
pub fn node_token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("server/node-token")
}

/// Knows the token.
pub struct NodeToken {
    file: PathBuf,
    is_new: bool,
}

impl NodeToken {
    /// Make or keep the token. `given` is what the flags say; `ca` is the PEM of our CA.
    pub fn keep(data_dir: &Path, given: Option<&str>, ca: &str) -> Result<Self> {
        let file = node_token_file(data_dir);
        let ca = CertificateDer::from_pem_slice(ca.as_bytes()).context("parsing the server's CA")?;
        let ca = token::sha256(&ca);
        let known = std::fs::read_to_string(&file).ok();
        let secret = match (given, &known) {
            (Some(given), _) => {
                let token = Token::parse(given).context("--token")?;
                ensure!(token.ca.is_none_or(|pinned| pinned == ca), "--token: the token is of another cluster");
                token.secret
            }
            (None, Some(text)) => Token::parse(text).with_context(|| format!("{}", file.display()))?.secret,
            (None, None) => random_secret(),
        };
        let text = format!("{}\n", token::pinned(&ca, &secret));
        if known.as_ref() != Some(&text) {
            durable::write(&file, text.as_bytes(), durable::SECRET)
                .with_context(|| format!("writing {}", file.display()))?;
        }
        Ok(NodeToken { file, is_new: known.is_none() })
    }

    /// Whether there was none before this start.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The token as it is now, in the form that pins our CA.
    pub fn current(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
        Ok(text.trim().to_owned())
    }

    /// Write another random token; nodes that have joined stay.
    pub fn rotate(data_dir: &Path) -> Result<String> {
        let file = node_token_file(data_dir);
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}; run this on the server", file.display()))?;
        let old = Token::parse(&text).with_context(|| format!("{}", file.display()))?;
        let ca = old.ca.context("the token does not pin a CA")?;
        let new = token::pinned(&ca, &random_secret());
        durable::write(&file, format!("{new}\n").as_bytes(), durable::SECRET)
            .with_context(|| format!("writing {}", file.display()))?;
        Ok(new)
    }
}

fn random_secret() -> String {
    token::hex(&rand::random::<[u8; SECRET_BYTES]>())
}

#[async_trait]
impl TokenAuthenticator for NodeToken {
    /// The file is read each time: joins are rare, and a rotation counts at once.
    async fn authenticate(&self, given: &str, audiences: &[String]) -> ApiResult<Option<(UserInfo, Vec<String>)>> {
        let Some(known) = self.current().ok().and_then(|text| Token::parse(&text).ok()) else { return Ok(None) };
        // Of digests, so that the time it takes says nothing about the secret.
        if token::sha256(known.secret.as_bytes()) != token::sha256(given.as_bytes()) {
            return Ok(None);
        }
        Ok(Some((UserInfo::authenticated(USER, &GROUPS), audiences.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
    }

    async fn lets_in(token: &NodeToken, secret: &str) -> bool {
        token.authenticate(secret, &[]).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn made_once_given_or_rotated() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("server")).unwrap();
        let ca = ca();
        let first = NodeToken::keep(dir.path(), None, &ca).unwrap();
        let made = Token::parse(&first.current().unwrap()).unwrap();
        assert!(made.ca.is_some() && made.secret.len() == 2 * SECRET_BYTES);
        assert!(lets_in(&first, &made.secret).await);
        assert!(!lets_in(&first, "wrong").await && !lets_in(&first, "").await);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(node_token_file(dir.path())).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);

        let again = NodeToken::keep(dir.path(), None, &ca).unwrap();
        assert_eq!(again.current().unwrap(), first.current().unwrap());
        let rotated = Token::parse(&NodeToken::rotate(dir.path()).unwrap()).unwrap();
        assert!(lets_in(&again, &rotated.secret).await && !lets_in(&again, &made.secret).await);

        let given = NodeToken::keep(dir.path(), Some("mine"), &ca).unwrap();
        assert!(lets_in(&given, "mine").await && !lets_in(&given, &rotated.secret).await);
        let foreign = token::pinned(&[1; 32], "mine");
        assert!(NodeToken::keep(dir.path(), Some(&foreign), &ca).is_err());
    }
}
