//! How a store is doing: what `kedge status` and `/metrics` show of it.

use super::Revision;
use std::time::Duration;

/// Upper bounds of the buckets that commits are counted in, in seconds.
pub const COMMIT_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.002, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0];

/// How long durable commits took, from the first byte written to behind the disk's barrier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commits {
    /// Per bucket, those that took at most its bound.
    pub buckets: [u64; COMMIT_BUCKETS.len()],
    pub count: u64,
    pub seconds: f64,
    /// The longest one in [`RECENT`] or so.
    pub recent_worst: Duration,
}

/// What [`Commits::recent_worst`] looks back on, at least.
pub const RECENT: Duration = Duration::from_secs(300);

impl Commits {
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.count += 1;
        self.seconds += seconds;
        for (bucket, bound) in self.buckets.iter_mut().zip(COMMIT_BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    /// The bound under which this part (0 to 1) of all commits stayed; None without any, or above the last bound.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let wanted = (self.count as f64 * part).ceil().max(1.0) as u64;
        let at = self.buckets.iter().position(|&count| count >= wanted)?;
        COMMIT_BUCKETS.get(at).copied()
    }
}

/// Data that could not be kept, found when the store was opened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// When it was found, in seconds since 1970.
    pub time: i64,
    /// What was wrong.
    pub cause: String,
    /// Acknowledged writes from this revision on are lost …
    pub first_lost: u64,
    /// … up to this one, at least.
    pub last_lost: u64,
    /// What the store goes on with.
    pub restored: String,
    /// Where the damaged files were put.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kept: Option<String>,
    /// The revision that the store goes on from; everything below it is compacted.
    pub continues_at: u64,
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Loss { cause, first_lost, last_lost, restored, continues_at, .. } = self;
        write!(
            f,
            "writes of revisions {first_lost} to {last_lost} are lost ({cause}); the store goes on with {restored}, \
             from revision {continues_at}"
        )?;
        match &self.kept {
            Some(kept) => write!(f, "; the damaged files are in {kept}"),
            None => Ok(()),
        }
    }
}

/// The newest rolling snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub revision: Revision,
    /// Seconds since 1970.
    pub time: i64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Condition {
    pub commits: Commits,
    /// Why writes are refused or fail at present.
    pub alarm: Option<String>,
    /// Losses on record, oldest first.
    pub losses: Vec<Loss>,
    pub snapshot: Option<Snapshot>,
    /// Bytes written to disk of late, as so many a day; None before there is enough to tell from.
    pub written_per_day: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let mut commits = Commits::default();
        assert_eq!(commits.quantile(0.5), None);
        for millis in [1, 1, 1, 1, 1, 1, 1, 1, 3, 3000] {
            commits.observe(Duration::from_millis(millis));
        }
        assert_eq!([0.5, 0.9, 1.0].map(|part| commits.quantile(part)), [Some(0.001), Some(0.005), Some(10.0)]);
        commits.observe(Duration::from_secs(100));
        assert_eq!((commits.quantile(1.0), commits.count), (None, 11));
    }
}
