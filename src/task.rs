//! The only place that spawns (invariant checked by `tests/tidy.rs`).
//!
//! Tasks have parents: a [`Group`] is a node of the cancellation tree. Every task has a name for logs; a panic in a
//! task is caught and logged and never ends the process (DESIGN D12); a *fatal* error cancels the whole tree with
//! that error, and `main` turns it into the exit code.

use futures::FutureExt;
use parking_lot::Mutex;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info_span};

/// A set of tasks that end together. Cloning gives another handle to the same set.
#[derive(Clone)]
pub struct Group {
    token: CancellationToken,
    tracker: TaskTracker,
    fatal: Arc<Mutex<Option<anyhow::Error>>>,
    root: CancellationToken,
}

impl Group {
    /// The root of a tree.
    pub fn root() -> Self {
        let token = CancellationToken::new();
        Group { root: token.clone(), token, tracker: TaskTracker::new(), fatal: Arc::default() }
    }

    /// A child that is cancelled with its parent, or alone by [`Group::cancel`].
    pub fn child(&self) -> Self {
        Group { token: self.token.child_token(), tracker: TaskTracker::new(), ..self.clone() }
    }

    /// Start a task. It should watch [`Group::cancelled`]; what ignores it is dropped at its next await when the
    /// group is cancelled.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let token = self.token.clone();
        let guarded = async move {
            let run = AssertUnwindSafe(future).catch_unwind();
            tokio::select! {
                biased;
                result = run => if result.is_err() { error!(task = name, "task panicked") },
                () = token.cancelled() => debug!(task = name, "cancelled"),
            }
        };
        self.tracker.spawn(guarded.instrument(info_span!("task", name)));
    }

    /// Start a task that must see the cancellation itself and finish in order (it is awaited, not dropped).
    pub fn spawn_graceful<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guarded = async move {
            if AssertUnwindSafe(future).catch_unwind().await.is_err() {
                error!(task = name, "task panicked");
            }
        };
        self.tracker.spawn(guarded.instrument(info_span!("task", name)));
    }

    /// Start a task whose error ends the program: the tree is cancelled and `main` reports the error.
    pub fn spawn_vital<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let group = self.clone();
        self.spawn_graceful(name, async move {
            if let Err(error) = future.await {
                group.fail(error.context(name));
            }
        });
    }

    /// Run blocking work off the async threads and give its result. A panic inside comes back as an error.
    pub async fn blocking<T, F>(work: F) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        tokio::task::spawn_blocking(work).await.map_err(|e| anyhow::anyhow!("blocking work failed: {e}"))
    }

    /// End the whole tree with an error (the first one is kept).
    pub fn fail(&self, error: anyhow::Error) {
        self.fatal.lock().get_or_insert(error);
        self.root.cancel();
    }

    /// End this group.
    pub fn cancel(&self) {
        self.token.cancel();
    }

    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves when this group ends.
    pub async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// The group's token, for libraries that want one.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Cancel and wait until every task has ended, at most `grace`. Returns the fatal error, if there was one.
    pub async fn join(&self, grace: Duration) -> anyhow::Result<()> {
        self.wind_down(grace).await;
        self.fatal.lock().take().map_or(Ok(()), Err)
    }

    /// Cancel and wait until every task of this group has ended, at most `grace`.
    pub async fn wind_down(&self, grace: Duration) {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout(grace, self.tracker.wait()).await.is_err() {
            debug!(left = self.tracker.len(), "tasks still running after the grace period");
        }
    }
}

/// Run blocking work on a thread of its own and wait for it: for work that changes what belongs to a thread (its
/// namespaces), so that no pooled thread ever carries the change on. A panic inside comes back as an error.
pub fn on_own_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| std::io::Error::other("the thread panicked"))
    })
}

/// A thread of its own, for work that blocks for as long as the program runs. It ends when its work does: give it a
/// channel that closes. A panic in it is logged.
pub fn thread<F>(name: &'static str, work: F) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    std::thread::Builder::new().name(name.into()).spawn(move || {
        if std::panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            error!(thread = name, "thread panicked");
        }
    })
}
