//! Rules that many kinds share: labels and selectors, quantities, addresses, int-or-percent.

use super::names;
use super::view::View;
use crate::quantity::Quantity;
use crate::selector::LabelSelector;
use serde_json::Value;
use std::net::{IpAddr, Ipv6Addr};

const ANNOTATIONS_MAX_BYTES: usize = 256 * 1024;

/// A map of labels.
pub fn labels(map: &View<'_>) {
    for (key, value) in map.entries() {
        label_key(&map.named(map.path().clone()), key);
        for why in names::label_value(value.str()) {
            map.invalid_value(value.str(), why);
        }
    }
}

fn label_key(at: &View<'_>, key: &str) {
    for why in names::qualified_name(key) {
        at.invalid_value(key, why);
    }
}

/// Annotations of a template.
pub fn annotations(map: &View<'_>) {
    let mut bytes = 0;
    for (key, value) in map.entries() {
        label_key(map, &key.to_lowercase());
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_MAX_BYTES {
        map.too_long(ANNOTATIONS_MAX_BYTES);
    }
}

/// A `metav1.LabelSelector`, where there is one.
pub fn label_selector(selector: &View<'_>) {
    labels(&selector.get("matchLabels"));
    for expression in selector.get("matchExpressions").items() {
        let values = expression.get("values");
        match expression.get("operator").str() {
            "In" | "NotIn" if values.is_empty() => {
                values.required("must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => expression.get("operator").invalid_value(other, "not a valid selector operator"),
        }
        expression.get("key").formats(names::qualified_name);
        values.items().for_each(|value| value.formats(names::label_value));
    }
}

/// No terms: selects everything.
pub fn selects_all(selector: &View<'_>) -> bool {
    selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty()
}

/// The selector of a workload kind: required, not empty, and the template's labels match it.
pub fn workload_selector(spec: &View<'_>, kind: &str) {
    let selector = spec.get("selector");
    if !selector.is_set() {
        selector.required("");
        return;
    }
    label_selector(&selector);
    if selects_all(&selector) {
        selector.invalid(format!("empty selector is invalid for {kind}"));
        return;
    }
    let parsed = LabelSelector::from_object(Some(selector.value()));
    let labels = spec.at(&["template", "metadata", "labels"]);
    if parsed.is_ok_and(|s| !s.matches_labels(labels.value().as_object())) {
        selector_mismatch(&labels);
    }
}

pub fn selector_mismatch(labels: &View<'_>) {
    let shown = if labels.is_set() { labels.value().clone() } else { Value::Object(Default::default()) };
    labels.invalid_value(shown, "`selector` does not match template `labels`");
}

/// A quantity that is not negative.
pub fn non_negative_quantity(at: &View<'_>) -> Option<Quantity> {
    let quantity = at.quantity()?;
    if quantity.sign() < 0 {
        at.invalid_value(quantity.to_string(), "must be greater than or equal to 0");
    }
    Some(quantity)
}

pub fn positive_quantity(at: &View<'_>) {
    if let Some(quantity) = at.quantity()
        && quantity.sign() <= 0
    {
        at.invalid_value(quantity.to_string(), "must be greater than zero");
    }
}

/// A port number or the name of one.
pub fn port_or_name(at: &View<'_>) {
    if at.value().is_string() { at.formats(names::port_name) } else { at.port() }
}

/// `25%` → Some(25).
pub fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// A non-negative integer or a percentage.
pub fn int_or_percent(at: &View<'_>) {
    match at.value() {
        Value::String(_) if percent(at.value()).is_none() => at.invalid(
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%' or '93%', regex \
             used for validation is '[0-9]+%')",
        ),
        Value::String(_) | Value::Null => {}
        _ => at.non_negative(),
    }
}

pub fn not_more_than_100_percent(at: &View<'_>) {
    if percent(at.value()).is_some_and(|p| p > 100) {
        at.invalid("must not be greater than 100%");
    }
}

/// 0, `0` or `0%`.
pub fn is_zero_int_or_percent(value: &Value) -> bool {
    value.as_i64() == Some(0) || percent(value) == Some(0) || value.is_null()
}

/// An IP address as upstream reads it: leading zeros in IPv4 are tolerated.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 3 || !part.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| IpAddr::from(octets))
}

pub fn ip(at: &View<'_>) -> Option<IpAddr> {
    let ip = parse_ip(at.str());
    if ip.is_none() {
        at.invalid_value(at.str(), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
    ip
}

/// An address and its prefix length.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = parse_ip(address)?;
    let bits = bits.parse::<u8>().ok().filter(|_| bits.bytes().all(|c| c.is_ascii_digit()))?;
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

pub fn cidr(at: &View<'_>) -> Option<(IpAddr, u8)> {
    let cidr = parse_cidr(at.str().trim());
    if cidr.is_none() {
        at.invalid_value(at.str(), "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
    cidr
}

/// An address lies in a network.
pub fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let prefix = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)).checked_shr(32 - u32::from(bits.min(32))),
        IpAddr::V6(ip) => Some(u128::from(ip).checked_shr(128 - u32::from(bits.min(128))).unwrap_or(0)),
    };
    address.is_ipv4() == network.is_ipv4() && prefix(address) == prefix(network)
}

/// An address that can be a backend: not unspecified, loopback or link-local.
pub fn non_special_ip(at: &View<'_>) {
    let Some(ip) = parse_ip(at.str()) else {
        at.invalid_value(at.str(), "must be a valid IP address");
        return;
    };
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    if ip.is_unspecified() {
        at.invalid(format!("may not be unspecified ({})", at.str()));
    }
    if ip.is_loopback() {
        at.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        at.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        at.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// One address (or network) of each family at most, no duplicates.
pub fn one_per_family(list: &View<'_>, family: impl Fn(&View<'_>) -> Option<bool>, what: &str) {
    let families: Vec<bool> = list.items().filter_map(|item| family(&item)).collect();
    if list.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
        list.invalid(format!("may specify no more than one {what} for each IP family"));
    }
}

/// A path inside a volume: relative, without `..`, not starting with `..`.
pub fn local_path(at: &View<'_>) {
    descending_path(at);
    if at.str().starts_with("..") && !at.str().starts_with("../") {
        at.invalid("must not start with '..'");
    }
}

/// A relative path without `..`.
pub fn descending_path(at: &View<'_>) {
    if at.str().starts_with('/') {
        at.invalid("must be a relative path");
    }
    no_backsteps(at);
}

pub fn no_backsteps(at: &View<'_>) {
    if at.str().split('/').any(|part| part == "..") {
        at.invalid("must not contain '..'");
    }
}

/// Counts in a status that may not exceed `replicas`.
pub fn replica_counts(status: &View<'_>, counts: &[&str]) {
    let replicas = status.get("replicas");
    replicas.non_negative();
    for name in counts {
        let count = status.get(name);
        count.non_negative();
        if count.number() > replicas.number() {
            count.invalid("cannot be greater than status.replicas");
        }
    }
    status.get("observedGeneration").non_negative();
    let (ready, available) = (status.get("readyReplicas"), status.get("availableReplicas"));
    if counts.contains(&"availableReplicas") && available.number() > ready.number() {
        available.invalid("cannot be greater than readyReplicas");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, ok) in [
            ("10.0.0.1", true),
            ("010.0.0.1", true),
            ("10.0.0", false),
            ("10.0.0.256", false),
            ("fd00::1", true),
            ("::", true),
            ("g::", false),
            ("", false),
            ("1.2.3.4.5", false),
        ] {
            assert_eq!(parse_ip(text).is_some(), ok, "{text}");
        }
        for (text, ok) in [
            ("10.0.0.0/8", true),
            ("10.0.0.0/33", false),
            ("fd00::/64", true),
            ("10.0.0.0", false),
            ("10.0.0.0/+8", false),
        ] {
            assert_eq!(parse_cidr(text).is_some(), ok, "{text}");
        }
    }
}
