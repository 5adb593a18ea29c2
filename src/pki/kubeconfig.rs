//! Kubeconfig files with everything embedded.

use super::leaf::Leaf;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// A kubeconfig with one cluster, one user and one context.
pub struct Kubeconfig<'a> {
    /// `https://host:port`
    pub url: &'a str,
    /// CA that the server's certificate comes from.
    pub ca_pem: &'a str,
    pub user: &'a str,
    pub leaf: &'a Leaf,
}

impl Kubeconfig<'_> {
    pub fn to_yaml(&self) -> String {
        let encode = |text: &str| BASE64_STANDARD.encode(text);
        let (url, user) = (self.url, self.user);
        let (ca, cert, key) = (encode(self.ca_pem), encode(&self.leaf.cert_pem), encode(&self.leaf.key_pem));
        let cluster = format!("server: {url}\n    certificate-authority-data: {ca}");
        yaml(&cluster, user, &format!("client-certificate-data: {cert}\n    client-key-data: {key}"))
    }
}

/// A kubeconfig that names files beside it: the CA, the certificate, the key. `server_name`: what the server's certificate
/// must say, whatever the address.
pub fn kubeconfig_of_files(url: &str, server_name: &str, [ca, cert, key]: [&str; 3], user: &str) -> String {
    let cluster = format!("server: {url}\n    tls-server-name: {server_name}\n    certificate-authority: {ca}");
    yaml(&cluster, user, &format!("client-certificate: {cert}\n    client-key: {key}"))
}

fn yaml(cluster: &str, user: &str, credentials: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: kedge
  cluster:
    {cluster}
users:
- name: {user}
  user:
    {credentials}
contexts:
- name: kedge
  context:
    cluster: kedge
    user: {user}
current-context: kedge
preferences: {{}}
"
    )
}
