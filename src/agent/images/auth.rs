//! Registry credentials from `imagePullSecrets`: `.dockerconfigjson` and the older `.dockercfg`.

use super::reference;
use base64::Engine;
use k8s_cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

/// Credentials for an image out of a pod's secrets, the most specific registry path first. Unreadable secrets are
/// skipped, as upstream does: the pull then fails with the registry's own words.
pub fn credentials<'a>(image: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> Vec<AuthConfig> {
    let Some(full) = reference::normalize(image) else { return Vec::new() };
    let mut found: Vec<(usize, AuthConfig)> = Vec::new();
    for secret in secrets {
        for (key, entry) in entries(secret) {
            if let Some(specific) = matches(&key, &full) {
                found.push((specific, auth_config(&entry)));
            }
        }
    }
    found.sort_by_key(|(specific, _)| std::cmp::Reverse(*specific));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn entries(secret: &Secret) -> BTreeMap<String, Entry> {
    let data = |key: &str| secret.data.as_ref().and_then(|d| d.get(key));
    if let Some(json) = data(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(&json.0).unwrap_or_default().auths;
    }
    data(".dockercfg").and_then(|json| serde_json::from_slice(&json.0).ok()).unwrap_or_default()
}

/// How many letters of the image's name a key covers; None: it is for another registry.
fn matches(key: &str, full: &str) -> Option<usize> {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    // Docker Hub's historic key carries its API path.
    let key = key.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    let key = match key {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let (image_host, image_path) = full.split_once('/')?;
    let host_matches = match host.strip_prefix("*.") {
        Some(suffix) => image_host.split_once('.').is_some_and(|(_, rest)| rest == suffix),
        None => host == image_host,
    };
    let path_matches =
        image_path.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.starts_with(['/', ':', '@']));
    (host_matches && path_matches).then_some(key.len())
}

fn auth_config(entry: &Entry) -> AuthConfig {
    let (mut username, mut password) = (entry.username.clone(), entry.password.clone());
    if username.is_empty()
        && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(entry.auth.trim())
        && let Ok(text) = String::from_utf8(bytes)
        && let Some((user, pass)) = text.split_once(':')
    {
        (username, password) = (user.to_owned(), pass.trim_end_matches('\0').to_owned());
    }
    AuthConfig {
        username,
        password,
        identity_token: entry.identity_token.clone(),
        registry_token: entry.registry_token.clone(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_most_specific_credentials_first() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": base64::engine::general_purpose::STANDARD.encode("hub:h")},
            "reg.example:5000": {"username": "all", "password": "a"},
            "reg.example:5000/team": {"username": "team", "password": "t"},
            "*.example.org": {"username": "wild", "password": "w"},
        }});
        let data = base64::engine::general_purpose::STANDARD.encode(config.to_string());
        let secret: Secret = serde_json::from_value(json!({"data": {".dockerconfigjson": data}})).unwrap();
        let cases: [(&str, &[&str]); 6] = [
            ("nginx", &["hub"]),
            ("reg.example:5000/team/app:1", &["team", "all"]),
            ("reg.example:5000/teams/app", &["all"]),
            ("a.example.org/x", &["wild"]),
            ("a.b.example.org/x", &[]),
            ("quay.io/x/y", &[]),
        ];
        for (image, users) in cases {
            let found: Vec<String> = credentials(image, [&secret]).into_iter().map(|a| a.username).collect();
            assert_eq!(found, users, "{image}");
        }
    }
}
