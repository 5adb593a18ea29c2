//! A certificate authority: key and self-signed certificate, kept in two files.

use super::leaf::{LeafSpec, Usage};
use super::request::Request;
use super::{clock, file, read_if_there};
use crate::durable;
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use std::time::Duration;

/// Life of a CA in seconds: 10 years.
const CA_LIFE: i64 = 10 * 365 * 24 * 3600;
/// Certificates are valid this many seconds before they are issued: clocks of other machines may be behind. At most a
/// tenth of their life, or a short-lived one would be due for renewal at birth.
const BACKDATE: i64 = 3600;

/// Signs leaves of one trust domain.
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// The issuer's key once more: rcgen does not lend it.
    key: KeyPair,
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

    /// The CA in `<dir>/<name>.{crt,key}`.
    pub(super) fn load(dir: &Path, name: &str) -> Result<Self> {
        let read = |extension| {
            let path = file(dir, name, extension);
            std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Self::from_pem(read("crt")?, &read("key")?).with_context(|| format!("loading the CA {name}"))
    }

    fn from_pem(pem: String, key: &str) -> Result<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).context("parsing the certificate")?;
        let (issuer_key, key) = (KeyPair::from_pem(key), KeyPair::from_pem(key));
        let (issuer_key, key) = (issuer_key.context("parsing the key")?, key.context("parsing the key")?);
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).context("parsing the certificate")?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            bail!("certificate and key do not belong together");
        }
        let not_after = parsed.validity().not_after.timestamp();
        let issuer = Issuer::from_ca_cert_der(&der, issuer_key).context("using the CA certificate")?;
        Ok(Authority { pem, der, issuer, key, not_after })
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

    /// Sign a request as it stands: its subject, its names, its key, for these `usages` (the API's words: "client
    /// auth"). Whoever calls this has checked that it may be so. `life` in seconds. Returns PEM.
    pub fn sign_as_asked(&self, request: &Request, usages: &[String], life: i64) -> Result<String> {
        let mut params = self.blank(life);
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = alternative_names(request)?;
        for usage in usages {
            match usage_of(usage).with_context(|| format!("certificates for {usage:?} are not signed here"))? {
                For::Key(purpose) => params.key_usages.push(purpose),
                For::Extended(purpose) => params.extended_key_usages.push(purpose),
            }
        }
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.key, &self.issuer).context("signing a certificate")?;
        self.with_subject(certificate.der(), &request.subject)
    }

    /// The certificate with another subject, signed again: a subject may have several organizations, which rcgen
    /// cannot write.
    fn with_subject(&self, certificate: &[u8], subject: &[u8]) -> Result<String> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).context("reading the new certificate")?;
        let tbs = parsed.tbs_certificate.as_ref();
        let held = parsed.tbs_certificate.subject.as_raw();
        let at = held.as_ptr() as usize - tbs.as_ptr() as usize;
        let start = header_len(tbs)?;
        let tbs_new = der(SEQUENCE, &[&tbs[start..at], subject, &tbs[at + held.len()..]]);
        let after = &certificate[header_len(certificate)? + tbs.len()..];
        let algorithm = &after[..header_len(after)? + usize::from(after[1])];
        let signature = self.key.sign(&tbs_new).context("signing a certificate")?;
        let signature = der(BIT_STRING, &[&[0], &signature]);
        Ok(pem("CERTIFICATE", &der(SEQUENCE, &[&tbs_new, algorithm, &signature])))
    }

    /// What every leaf of this CA starts from.
    fn blank(&self, life: i64) -> CertificateParams {
        let now = clock::now();
        let mut params = CertificateParams::default();
        // A leaf never outlives its CA (upstream's signers cut likewise).
        set_validity(&mut params, now - BACKDATE.min(life / 10), (now + life).min(self.not_after));
        params.serial_number = Some(serial());
        params
    }

    fn params(&self, spec: &LeafSpec, life: i64) -> Result<CertificateParams> {
        let mut params = self.blank(life);
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

fn alternative_names(request: &Request) -> Result<Vec<SanType>> {
    let text = |name: &String| -> Result<_> { name.as_str().try_into().with_context(|| format!("the name {name:?}")) };
    let mut names = Vec::new();
    for name in &request.dns_names {
        names.push(SanType::DnsName(text(name)?));
    }
    for name in &request.emails {
        names.push(SanType::Rfc822Name(text(name)?));
    }
    for name in &request.uris {
        names.push(SanType::URI(text(name)?));
    }
    names.extend(request.addresses.iter().map(|a| SanType::IpAddress(*a)));
    Ok(names)
}

/// What a usage of the API is in a certificate (RFC 5280 §4.2.1.3, §4.2.1.12).
enum For {
    Key(KeyUsagePurpose),
    Extended(ExtendedKeyUsagePurpose),
}

fn usage_of(usage: &str) -> Option<For> {
    Some(match usage {
        "signing" | "digital signature" => For::Key(KeyUsagePurpose::DigitalSignature),
        "content commitment" => For::Key(KeyUsagePurpose::ContentCommitment),
        "key encipherment" => For::Key(KeyUsagePurpose::KeyEncipherment),
        "key agreement" => For::Key(KeyUsagePurpose::KeyAgreement),
        "data encipherment" => For::Key(KeyUsagePurpose::DataEncipherment),
        "client auth" => For::Extended(ExtendedKeyUsagePurpose::ClientAuth),
        "server auth" => For::Extended(ExtendedKeyUsagePurpose::ServerAuth),
        "code signing" => For::Extended(ExtendedKeyUsagePurpose::CodeSigning),
        "email protection" => For::Extended(ExtendedKeyUsagePurpose::EmailProtection),
        "timestamping" => For::Extended(ExtendedKeyUsagePurpose::TimeStamping),
        "ocsp signing" => For::Extended(ExtendedKeyUsagePurpose::OcspSigning),
        "any" => For::Extended(ExtendedKeyUsagePurpose::Any),
        _ => return None,
    })
}

/// Tags of DER (X.690 §8).
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// A DER value of these pieces.
fn der(tag: u8, pieces: &[&[u8]]) -> Vec<u8> {
    let length: usize = pieces.iter().map(|p| p.len()).sum();
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let digits = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
            out.push(0x80 | digits.len() as u8);
            out.extend_from_slice(digits);
        }
    }
    pieces.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// Bytes of tag and length before a DER value.
fn header_len(value: &[u8]) -> Result<usize> {
    let length = *value.get(1).context("a value that ends early")?;
    Ok(if length < 0x80 { 2 } else { 2 + usize::from(length & 0x7f) })
}

/// A DER value as PEM with lines of 64 (RFC 7468 section 2).
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap_or("")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
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
