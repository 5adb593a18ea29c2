//! Certificate signing requests of others (PKCS#10, RFC 2986): read once, for those who approve and for those who sign.

use anyhow::{Context, Result, anyhow, bail, ensure};
use rcgen::SubjectPublicKeyInfo;
use std::net::IpAddr;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// What a request asks for. Its signature was checked: whoever sent it holds the key.
#[derive(Clone, Debug)]
pub struct Request {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub emails: Vec<String>,
    pub uris: Vec<String>,
    /// SHA-256 of the public key (its SubjectPublicKeyInfo), lower-case hex: the same for every request of one key.
    pub key_hash: String,
    pub(super) key: SubjectPublicKeyInfo,
    /// The subject as it stands, DER.
    pub(super) subject: Vec<u8>,
}

impl Request {
    /// Read a PEM block `CERTIFICATE REQUEST` and check that its sender has the private key.
    pub fn parse(pem: &[u8]) -> Result<Self> {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).context("no PEM")?;
        ensure!(pem.label == "CERTIFICATE REQUEST", "PEM block type is {}, not CERTIFICATE REQUEST", pem.label);
        let (_, csr) = X509CertificationRequest::from_der(&pem.contents).context("no certificate request")?;
        csr.verify_signature().map_err(|e| anyhow!("the request is not signed by its own key: {e}"))?;
        let info = &csr.certification_request_info;
        let texts = |found: Vec<Result<&str, _>>| -> Result<Vec<String>> {
            found.into_iter().map(|t: Result<&str, x509_parser::error::X509Error>| Ok(t?.to_owned())).collect()
        };
        let names = texts(info.subject.iter_common_name().map(|a| a.as_str()).collect()).context("common name")?;
        let organizations = texts(info.subject.iter_organization().map(|a| a.as_str()).collect())?;
        let mut request = Request {
            // As Go reads a subject with several: the last one counts.
            common_name: names.last().cloned().unwrap_or_default(),
            organizations,
            dns_names: Vec::new(),
            addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            key_hash: super::hex(ring::digest::digest(&ring::digest::SHA256, info.subject_pki.raw).as_ref()),
            key: SubjectPublicKeyInfo::from_der(info.subject_pki.raw).context("a kind of key that is not supported")?,
            subject: info.subject.as_raw().to_vec(),
        };
        for extension in csr.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().try_for_each(|name| request.add(name))?;
            }
        }
        Ok(request)
    }

    fn add(&mut self, name: &GeneralName<'_>) -> Result<()> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
            GeneralName::URI(name) => self.uris.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => self.addresses.push(address(bytes)?),
            other => bail!("alternative names of this kind cannot be signed: {other}"),
        }
        Ok(())
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(v6).context("an IP address of neither 4 nor 16 bytes")
}
