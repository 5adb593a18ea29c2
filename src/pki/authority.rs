//! A certificate authority: key and self-signed certificate, kept in two files.

use super::leaf::{LeafSpec, Usage};
use super::{clock, file, read_if_there};
use crate::durable;
use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use std::time::Duration;

/// Life of a CA in seconds: 10 years.
const CA_LIFE: i64 = 10 * 365 * 24 * 3600;
/// Certificates are valid this many seconds before they are issued: clocks of other machines may be behind.
const BACKDATE: i64 = 3600;

/// Signs leaves of one trust domain.
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    not_after: i64,
}

impl Authority {
    /// The CA in `<dir>/<name>.{crt,key}`, made on first use. A certificate without its key (or the other way round)
    /// is an error: making a new CA would lock out every client of the old one.
    pub(super) fn load_or_create(dir: &Path, name: &str, common_name: &str) -> Result<Self> {
        let (cert_path, key_path) = (file(dir, name, "crt"), file(dir, name, "key"));
        let found = match (read_if_there(&cert_path)?, read_if_there(&key_path)?) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            // The key is written first, so a key alone is the trace of a start that was cut off.
            (None, Some(_)) => None,
            (Some(_), None) => bail!("{} is there, but its key {} is not", cert_path.display(), key_path.display()),
        };
        let (cert, key) = match found {
            Some(pair) => pair,
            None => {
                let (cert, key) = self_signed(common_name)?;
                let write = |path: &Path, text: &str, mode| {
                    durable::write(path, text.as_bytes(), mode).with_context(|| format!("writing {}", path.display()))
                };
                write(&key_path, &key, durable::SECRET)?;
                write(&cert_path, &cert, durable::PUBLIC)?;
                (cert, key)
            }
        };
        Self::from_pem(cert, &key).with_context(|| format!("loading the CA {}", cert_path.display()))
    }

    fn from_pem(pem: String, key: &str) -> Result<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).context("parsing the certificate")?;
        let key = KeyPair::from_pem(key).context("parsing the key")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).context("parsing the certificate")?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            bail!("certificate and key do not belong together");
        }
        let not_after = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&der, key).context("using the CA certificate")?;
        Ok(Authority { pem, der, issuer, not_after })
    }

    /// The CA certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Issue a certificate for a key of ours; PEM.
    pub(super) fn issue(&self, spec: &LeafSpec, key: &KeyPair, life: i64) -> Result<String> {
        let params = self.params(spec, life)?;
        Ok(params.signed_by(key, &self.issuer).context("signing a certificate")?.pem())
    }

    /// Sign a certificate signing request (PEM) of someone else's key: only its key is taken, everything said about it
    /// comes from `spec`. `life` in seconds. Returns PEM.
    pub fn sign_request(&self, csr_pem: &str, spec: &LeafSpec, life: i64) -> Result<String> {
        let csr = CertificateSigningRequestParams::from_pem(csr_pem).context("parsing the signing request")?;
        let params = self.params(spec, life)?;
        Ok(params.signed_by(&csr.public_key, &self.issuer).context("signing a certificate")?.pem())
    }

    fn params(&self, spec: &LeafSpec, life: i64) -> Result<CertificateParams> {
        let now = clock::now();
        let mut params = CertificateParams::default();
        // A leaf never outlives its CA (upstream's signers cut likewise).
        set_validity(&mut params, now - BACKDATE, (now + life).min(self.not_after));
        params.serial_number = Some(serial());
        params.distinguished_name = DistinguishedName::new();
        if !spec.organization.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, spec.organization.as_str());
        }
        params.distinguished_name.push(DnType::CommonName, spec.common_name.as_str());
        params.subject_alt_names = spec.sans.iter().map(|s| san(s)).collect::<Result<_>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match spec.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

/// A new CA: certificate and key as PEM.
fn self_signed(common_name: &str) -> Result<(String, String)> {
    let now = clock::now();
    let key = KeyPair::generate().context("generating a CA key")?;
    let mut params = CertificateParams::default();
    set_validity(&mut params, now - BACKDATE, now + CA_LIFE);
    params.serial_number = Some(serial());
    params.distinguished_name = DistinguishedName::new();
    // The time keeps CAs of different clusters (and generations) apart in clients' trust stores.
    params.distinguished_name.push(DnType::CommonName, format!("{common_name}@{now}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let cert = params.self_signed(&key).context("signing a CA certificate")?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// Set both ends of a certificate's life, in Unix seconds.
fn set_validity(params: &mut CertificateParams, not_before: i64, not_after: i64) {
    let since_epoch = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
}

/// 128 random bits, positive (RFC 5280 §4.1.2.2).
fn serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn san(name: &str) -> Result<SanType> {
    Ok(match name.parse() {
        Ok(ip) => SanType::IpAddress(ip),
        Err(_) => SanType::DnsName(name.try_into().with_context(|| format!("{name:?} is not a DNS name"))?),
    })
}
