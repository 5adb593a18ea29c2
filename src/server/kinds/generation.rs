//! Which kinds count the generations of their spec (upstream: whose strategy sets `metadata.generation` to 1), and
//! which ones a DELETE answers with the object itself, which are deprecated. Kept here as data: upstream follows no rule.

use super::Kind;

/// (group, plural), sorted.
const COUNTED: &[(&str, &str)] = &[
    ("", "pods"),
    ("", "podtemplates"),
    ("", "replicationcontrollers"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("batch", "cronjobs"),
    ("batch", "jobs"),
    ("discovery.k8s.io", "endpointslices"),
    ("flowcontrol.apiserver.k8s.io", "flowschemas"),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"),
    ("networking.k8s.io", "ingressclasses"),
    ("networking.k8s.io", "ingresses"),
    ("networking.k8s.io", "networkpolicies"),
    ("policy", "poddisruptionbudgets"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "resourceslices"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "csidrivers"),
];

/// (group, plural), sorted.
const RETURNED: &[(&str, &str)] = &[
    ("", "persistentvolumeclaims"),
    ("", "persistentvolumes"),
    ("", "pods"),
    ("", "podtemplates"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
];

/// (group, plural, what users are told), sorted.
const DEPRECATED: &[(&str, &str, &str)] = &[
    ("", "componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
    ("", "endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
];

impl Kind {
    /// The warning that every answer about a deprecated kind carries.
    pub fn deprecation(&self) -> Option<&'static str> {
        let found = DEPRECATED.iter().find(|(group, plural, _)| *group == self.group && *plural == self.plural);
        found.map(|(_, _, text)| *text)
    }

    /// New objects start at generation 1, and every change of anything but metadata and status raises it.
    pub fn counts_generations(&self) -> bool {
        COUNTED.binary_search(&(self.group, self.plural)).is_ok()
    }

    /// An immediate deletion answers with the object rather than with a Status.
    pub fn returns_deleted(&self) -> bool {
        RETURNED.binary_search(&(self.group, self.plural)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_name_kinds() {
        for list in [COUNTED, RETURNED] {
            assert!(list.is_sorted());
            for (group, plural) in list {
                assert!(super::super::TABLE.iter().any(|k| k.group == *group && k.plural == *plural), "{plural}");
            }
        }
    }
}
