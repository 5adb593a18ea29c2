//! Probes and lifecycle hooks.

use super::Context;
use crate::server::kinds::view::View;
use crate::server::kinds::{names, rules};

type Handler = (&'static str, fn(&View<'_>, &Context<'_>));

const EXEC: Handler = ("exec", |exec, _| _ = exec.get("command").require());
const HTTP: Handler = ("httpGet", |http, _| http_get(http));
const TCP: Handler = ("tcpSocket", |tcp, _| rules::port_or_name(&tcp.get("port")));
const GRPC: Handler = ("grpc", |grpc, _| grpc.get("port").port());
const SLEEP: Handler = ("sleep", sleep);

/// All probes and hooks of a container that runs beside others.
pub(super) fn all(container: &View<'_>, context: &Context<'_>) {
    let lifecycle = container.get("lifecycle");
    for hook in ["postStart", "preStop"].map(|h| lifecycle.get(h)).iter().filter(|h| h.is_set()) {
        handler(hook, &[EXEC, HTTP, TCP, SLEEP], context);
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let one = container.get(name);
        if one.is_set() {
            probe(&one, name == "readinessProbe", context);
        }
    }
}

fn probe(probe: &View<'_>, is_readiness: bool, context: &Context<'_>) {
    handler(probe, &[EXEC, HTTP, TCP, GRPC], context);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.get(field).non_negative();
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        grace.invalid("must be greater than 0");
    }
    if is_readiness && grace.is_set() {
        grace.invalid("must not be set for readinessProbes");
    }
    let success = probe.get("successThreshold");
    if !is_readiness && success.number() != 1 {
        success.invalid_value(success.number(), "must be 1");
    }
}

/// Exactly one kind of action.
fn handler(at: &View<'_>, kinds: &[Handler], context: &Context<'_>) {
    let mut found = 0;
    for (name, rule) in kinds {
        let action = at.get(name);
        if !action.is_set() {
            continue;
        }
        found += 1;
        if found == 1 {
            rule(&action, context);
        } else {
            action.forbidden("may not specify more than 1 handler type");
        }
    }
    if found == 0 {
        at.required("must specify a handler type");
    }
}

fn http_get(http: &View<'_>) {
    http.get("path").require();
    rules::port_or_name(&http.get("port"));
    http.get("scheme").one_of(&["HTTP", "HTTPS"]);
    let headers = http.get("httpHeaders");
    for header in headers.items() {
        if let Err(why) = names::http_header(header.get("name").str()) {
            headers.invalid_value(header.get("name").str(), why);
        }
    }
}

fn sleep(sleep: &View<'_>, context: &Context<'_>) {
    let seconds = sleep.get("seconds").number();
    if let Some(grace) = context.grace_seconds
        && !(0..=grace).contains(&seconds)
    {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        sleep.invalid_value(seconds, why);
    }
}
