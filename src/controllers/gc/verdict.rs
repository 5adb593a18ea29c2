//! What to do with an object, from the state of its owners: pure.

use super::graph::{FOREGROUND, ORPHAN};
use kube::api::PropagationPolicy;

/// The state of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Solid,
    /// In foreground deletion: it waits for its dependents to go.
    Waiting,
    Gone,
}

#[derive(Debug, PartialEq)]
pub enum Verdict {
    Keep,
    /// It has another owner: only the references to those gone or waiting are dropped.
    Drop,
    Delete(PropagationPolicy),
}

pub fn verdict(owners: &[Owner], has_dependents: bool, finalizers: &[String]) -> Verdict {
    let any = |state: Owner| owners.contains(&state);
    let has = |finalizer: &str| finalizers.iter().any(|f| f == finalizer);
    match (any(Owner::Solid), any(Owner::Waiting), any(Owner::Gone)) {
        (_, false, false) => Verdict::Keep,
        (true, ..) => Verdict::Drop,
        // The owner waits for this object, so this object waits for its own dependents.
        (false, true, _) if has_dependents => Verdict::Delete(PropagationPolicy::Foreground),
        _ if has(ORPHAN) => Verdict::Delete(PropagationPolicy::Orphan),
        _ if has(FOREGROUND) => Verdict::Delete(PropagationPolicy::Foreground),
        _ => Verdict::Delete(PropagationPolicy::Background),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Owner::*;
    use PropagationPolicy::*;

    #[test]
    fn only_objects_without_a_living_owner_go() {
        let cases: [(&[Owner], bool, &[&str], Verdict); 10] = [
            (&[], false, &[], Verdict::Keep),
            (&[Solid], false, &[], Verdict::Keep),
            (&[Solid, Gone], false, &[], Verdict::Drop),
            (&[Solid, Waiting], true, &[], Verdict::Drop),
            (&[Gone], false, &[], Verdict::Delete(Background)),
            (&[Gone, Gone], true, &[], Verdict::Delete(Background)),
            (&[Waiting], true, &[], Verdict::Delete(Foreground)),
            (&[Waiting], false, &[], Verdict::Delete(Background)),
            (&[Gone], false, &[ORPHAN], Verdict::Delete(Orphan)),
            (&[Gone], false, &[FOREGROUND], Verdict::Delete(Foreground)),
        ];
        for (owners, has_dependents, finalizers, expected) in cases {
            let finalizers: Vec<_> = finalizers.iter().map(|f| (*f).to_owned()).collect();
            assert_eq!(verdict(owners, has_dependents, &finalizers), expected, "{owners:?} {has_dependents}");
        }
    }
}
