//! Getting a container's image: policy, credentials, back-off, and the events that users know.

use super::{auth, reference};
use crate::agent::context::Agent;
use crate::agent::pods::backoff::Backoff;
use crate::agent::pods::sources::PodSources;
use crate::events::{Normal, Warning};
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Instant;

/// Why there is no image; becomes the container's waiting state.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

/// Failed pulls of one pod: image → pause, and what the last try said.
pub type PullBackoffs = Mutex<HashMap<String, (Backoff, String)>>;

/// The image, pulled if the policy says so. `again`: this pod has run it before, and may so again while the registry
/// cannot be reached, whatever the policy.
pub async fn ensure(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    sandbox: &cri::PodSandboxConfig,
    sources: &PodSources,
    backoffs: &PullBackoffs,
    again: bool,
) -> Result<cri::Image, Failure> {
    let image = container.image.as_deref().unwrap_or_default();
    let name = Some(container.name.as_str());
    if reference::normalize(image).is_none() {
        let message = format!(
            "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
        );
        agent.event(pod, name, Warning, "InspectFailed", &message);
        return Err(Failure { reason: "InvalidImageName", message });
    }
    let present = match agent.cri.image(image).await {
        Ok(found) => found,
        Err(error) => {
            let message = format!("Failed to inspect image \"{image}\": {error}");
            agent.event(pod, name, Warning, "InspectFailed", &message);
            return Err(Failure { reason: "ImageInspectError", message });
        }
    };
    match (policy(container), present) {
        ("Never", None) => {
            let message = format!("Container image \"{image}\" is not present with pull policy of Never");
            agent.event(pod, name, Warning, "ErrImageNeverPull", &message);
            Err(Failure { reason: "ErrImageNeverPull", message })
        }
        ("Never" | "IfNotPresent", Some(found)) => {
            let message =
                format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
            agent.event(pod, name, Normal, "Pulled", message);
            Ok(found)
        }
        (_, present) => match (pull(agent, pod, container, sandbox, sources, backoffs).await, present) {
            (Err(failure), Some(found)) if again && is_unreachable(&failure.message) => {
                let message =
                    format!("Registry of \"{image}\" cannot be reached; going on with the image on this machine");
                agent.event(pod, name, Normal, "Pulled", message);
                Ok(found)
            }
            (outcome, _) => outcome,
        },
    }
}

/// containerd's words for a registry that was not reached, as against one that refused.
fn is_unreachable(message: &str) -> bool {
    message.contains("failed to do request") && !message.contains("x509:")
}

/// A container's pull policy; the API has set it, older objects may lack it.
fn policy(container: &Container) -> &str {
    let image = container.image.as_deref().unwrap_or_default();
    let latest = reference::normalize(image).is_some_and(|full| full.ends_with(":latest"));
    container.image_pull_policy.as_deref().unwrap_or(if latest { "Always" } else { "IfNotPresent" })
}

async fn pull(
    agent: &Agent,
    pod: &Pod,
    container: &Container,
    sandbox: &cri::PodSandboxConfig,
    sources: &PodSources,
    backoffs: &PullBackoffs,
) -> Result<cri::Image, Failure> {
    let image = container.image.as_deref().unwrap_or_default();
    let name = Some(container.name.as_str());
    let now = crate::time::now();
    let waiting = backoffs.lock().get(image).and_then(|(b, last)| b.since_update(now).map(|_| last.clone()));
    if let Some(last) = waiting {
        let message = format!("Back-off pulling image \"{image}\"");
        agent.event(pod, name, Normal, "BackOff", &message);
        return Err(Failure { reason: "ImagePullBackOff", message: format!("{message}: ErrImagePull: {last}") });
    }
    let begun = Instant::now();
    let _permit = agent.pulls.acquire().await;
    agent.event(pod, name, Normal, "Pulling", format!("Pulling image \"{image}\""));
    let pulling = Instant::now();
    let credentials = credentials(pod, image, sources).await;
    match try_each(agent, image, credentials, sandbox).await {
        Ok(found) => {
            backoffs.lock().remove(image);
            let (took, with_wait) = (go_duration(pulling.elapsed()), go_duration(begun.elapsed()));
            let message = format!(
                "Successfully pulled image \"{image}\" in {took} ({with_wait} including waiting). Image size: {} bytes.",
                found.size
            );
            agent.event(pod, name, Normal, "Pulled", message);
            Ok(found)
        }
        Err(error) => {
            agent.event(pod, name, Warning, "Failed", format!("Failed to pull image \"{image}\": {error}"));
            let now = crate::time::now();
            let mut backoffs = backoffs.lock();
            match backoffs.get_mut(image) {
                Some((backoff, last)) => {
                    backoff.next(now, now);
                    last.clone_from(&error);
                }
                None => drop(backoffs.insert(image.to_owned(), (Backoff::new(now), error.clone()))),
            }
            Err(Failure { reason: "ErrImagePull", message: error })
        }
    }
}

/// With each credential in turn, or with none. The last error counts.
async fn try_each(
    agent: &Agent,
    image: &str,
    credentials: Vec<cri::AuthConfig>,
    sandbox: &cri::PodSandboxConfig,
) -> Result<cri::Image, String> {
    let tries: Vec<Option<cri::AuthConfig>> =
        if credentials.is_empty() { vec![None] } else { credentials.into_iter().map(Some).collect() };
    let mut last = String::new();
    for auth in tries {
        match agent.cri.pull(image, auth, sandbox.clone()).await {
            Ok(_) => match agent.cri.image(image).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => last = format!("image \"{image}\" is gone after its pull"),
                Err(error) => last = error.to_string(),
            },
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

async fn credentials(pod: &Pod, image: &str, sources: &PodSources) -> Vec<cri::AuthConfig> {
    let names = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten()).map(|r| r.name.as_str());
    let mut secrets = Vec::new();
    for name in names {
        // A missing secret is not an error: the image may be public (upstream warns and goes on).
        if let Ok(Some(secret)) = sources.secret(name).await {
            secrets.push(secret);
        }
    }
    auth::credentials(image, secrets.iter().map(AsRef::as_ref))
}

/// `1.234s`, `56ms`, as Go prints durations rounded to milliseconds.
fn go_duration(duration: std::time::Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => {
            let text = format!("{}.{:03}", ms / 1000, ms % 1000);
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => format!("{}m{}s", ms / 60_000, (ms % 60_000) / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn durations() {
        for (ms, text) in [(0, "0ms"), (56, "56ms"), (1000, "1s"), (1230, "1.23s"), (61_500, "1m1s")] {
            assert_eq!(go_duration(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn unreachable_registries() {
        let head = "failed to resolve reference \"a/b:c\": failed to do request: Head \"https://a/v2/b/manifests/c\": ";
        for (text, unreachable) in [
            (format!("{head}dial tcp: lookup a: no such host"), true),
            (format!("{head}dial tcp 192.0.2.1:443: i/o timeout"), true),
            (format!("{head}x509: certificate signed by unknown authority"), false),
            ("pull access denied, repository does not exist or may require authorization".to_owned(), false),
        ] {
            assert_eq!(is_unreachable(&text), unreachable, "{text}");
        }
    }

    #[test]
    fn policies() {
        let cases = [("a", None, "Always"), ("a:1", None, "IfNotPresent"), ("a", Some("Never"), "Never")];
        for (image, own, wanted) in cases {
            let image_pull_policy = own.map(str::to_owned);
            let container = Container { image: Some(image.into()), image_pull_policy, ..Default::default() };
            assert_eq!(policy(&container), wanted);
        }
    }
}
