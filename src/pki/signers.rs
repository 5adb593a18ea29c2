//! The keys that sign certificates of users and nodes, for who signs without being the server.

use super::authority::Authority;
use super::{files, leaf, read_if_there};
use anyhow::{Context, Result};
use std::path::Path;

/// What is needed to sign.
pub struct Signing {
    pub client_ca: Authority,
    pub server_ca: Authority,
    /// Names and addresses of the API server, which nobody else may get: those of its certificate.
    pub api_names: Vec<String>,
}

impl Signing {
    /// From a directory as [`super::Pki`] keeps it.
    pub fn load(dir: &Path) -> Result<Self> {
        let serving = super::file(dir, files::SERVING, "crt");
        let certificate = read_if_there(&serving)?.with_context(|| format!("{} is missing", serving.display()))?;
        Ok(Signing {
            client_ca: Authority::load(dir, files::CLIENT_CA)?,
            server_ca: Authority::load(dir, files::SERVER_CA)?,
            api_names: leaf::names(&certificate).with_context(|| format!("reading {}", serving.display()))?,
        })
    }
}
