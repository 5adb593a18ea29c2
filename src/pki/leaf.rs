//! Leaf certificates: what one must say, whether the one on disk still does, and issuing it.

use super::authority::Authority;
use super::{clock, file, read_if_there};
use crate::durable;
use anyhow::{Context, Result};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

/// What the holder of a certificate does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

/// What a leaf says.
#[derive(Clone, Debug)]
pub struct LeafSpec {
    /// CN: the user name of a client.
    pub common_name: String,
    /// O: the group of a client; may be empty.
    pub organization: String,
    /// DNS names and IP addresses, sorted, each once.
    pub sans: Vec<String>,
    pub usage: Usage,
}

impl LeafSpec {
    pub fn server(common_name: &str, organization: &str, names: impl IntoIterator<Item = String>) -> Self {
        let sans: BTreeSet<String> = names.into_iter().filter(|n| !n.is_empty()).map(|n| canonical(&n)).collect();
        let sans = sans.into_iter().collect();
        LeafSpec { common_name: common_name.into(), organization: organization.into(), sans, usage: Usage::Server }
    }

    pub fn client(common_name: &str, organization: &str) -> Self {
        let (common_name, organization) = (common_name.to_owned(), organization.to_owned());
        LeafSpec { common_name, organization, sans: Vec::new(), usage: Usage::Client }
    }
}

/// One spelling for each address and name.
fn canonical(name: &str) -> String {
    name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |ip| ip.to_string())
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Leaf {
    pub cert_pem: String,
    pub key_pem: String,
}

impl Leaf {
    /// What is in `<dir>/<name>.{crt,key}`.
    pub(super) fn load(dir: &Path, name: &str) -> Result<Self> {
        let read = |extension| {
            let path = file(dir, name, extension);
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Ok(Leaf { cert_pem: read("crt")?, key_pem: read("key")? })
    }

    /// The leaf on disk if it still fits.
    pub(super) fn kept(dir: &Path, name: &str, ca: &Authority, spec: &LeafSpec) -> Result<Option<Self>> {
        let (cert, key) = (read_if_there(&file(dir, name, "crt"))?, read_if_there(&file(dir, name, "key"))?);
        let (Some(cert_pem), Some(key_pem)) = (cert, key) else { return Ok(None) };
        let leaf = Leaf { cert_pem, key_pem };
        Ok(leaf.fits(ca, spec, clock::now()).then_some(leaf))
    }

    /// A new leaf on disk.
    pub(super) fn issue_to(dir: &Path, name: &str, ca: &Authority, spec: &LeafSpec, life: i64) -> Result<Self> {
        let leaf = Self::issue(ca, spec, life)?;
        let (cert_path, key_path) = (file(dir, name, "crt"), file(dir, name, "key"));
        // Two files cannot change together: after a crash in between they do not fit, and are issued again.
        for (path, text, mode) in
            [(&key_path, &leaf.key_pem, durable::SECRET), (&cert_path, &leaf.cert_pem, durable::PUBLIC)]
        {
            durable::write(path, text.as_bytes(), mode).with_context(|| format!("writing {}", path.display()))?;
        }
        tracing::info!(name, subject = spec.common_name, "certificate issued");
        Ok(leaf)
    }

    /// A new certificate with a new key; `life` in seconds.
    pub fn issue(ca: &Authority, spec: &LeafSpec, life: i64) -> Result<Self> {
        let key = KeyPair::generate().context("generating a key")?;
        Ok(Leaf { cert_pem: ca.issue(spec, &key, life)?, key_pem: key.serialize_pem() })
    }

    /// Whether certificate and key are readable and belong together.
    pub fn is_whole(&self) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(self.cert_pem.as_bytes()) else { return false };
        let Ok((_, cert)) = x509_parser::parse_x509_certificate(&der) else { return false };
        let Ok(key) = KeyPair::from_pem(&self.key_pem) else { return false };
        cert.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
    }

    /// Whether this leaf says what `spec` wants, comes from `ca`, belongs to its key and is not yet due at `now`.
    fn fits(&self, ca: &Authority, spec: &LeafSpec, now: i64) -> bool {
        let Ok(der) = CertificateDer::from_pem_slice(self.cert_pem.as_bytes()) else { return false };
        let Ok((_, cert)) = x509_parser::parse_x509_certificate(&der) else { return false };
        let Ok((_, ca)) = x509_parser::parse_x509_certificate(ca.der()) else { return false };
        let Ok(key) = KeyPair::from_pem(&self.key_pem) else { return false };
        cert.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
            && is_signed_by(&cert, &ca)
            && subject(&cert) == (spec.common_name.as_str(), spec.organization.as_str())
            && sans(&cert) == spec.sans
            && !is_due(&cert, now)
    }
}

fn is_signed_by(cert: &X509Certificate<'_>, ca: &X509Certificate<'_>) -> bool {
    cert.issuer().as_raw() == ca.subject().as_raw() && cert.verify_signature(Some(ca.public_key())).is_ok()
}

/// CN and O of a certificate.
fn subject<'a>(cert: &'a X509Certificate<'_>) -> (&'a str, &'a str) {
    let common_name = cert.subject().iter_common_name().next().and_then(|a| a.as_str().ok());
    let organization = cert.subject().iter_organization().next().and_then(|a| a.as_str().ok());
    (common_name.unwrap_or(""), organization.unwrap_or(""))
}

/// Names of a certificate (PEM), sorted.
pub(super) fn names(pem: &str) -> Result<Vec<String>> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).context("parsing the certificate")?;
    let (_, cert) = x509_parser::parse_x509_certificate(&der).context("parsing the certificate")?;
    Ok(sans(&cert))
}

/// Names of a certificate, sorted.
fn sans(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = cert.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    };
    let names: BTreeSet<String> = extension.value.general_names.iter().filter_map(text).collect();
    names.into_iter().collect()
}

/// Two thirds of its life are over, or it is not yet valid.
fn is_due(cert: &X509Certificate<'_>, now: i64) -> bool {
    let (start, end) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    now < start || now >= start + (end - start) / 3 * 2
}
