//! Subscriptions to a cache: bounded mailboxes.

use super::{Cached, Change, Notice};
use crate::task::Group;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;

/// Changes a subscriber may have unread; when full, all of them become one [`Notice::Resync`].
pub(super) const UNREAD_CHANGES: usize = 4096;

/// Unread changes of one subscriber.
pub(super) struct Mailbox<K> {
    unread: Mutex<Unread<K>>,
    wake: Notify,
}

struct Unread<K> {
    changes: VecDeque<Change<K>>,
    overflowed: bool,
}

impl<K> Default for Mailbox<K> {
    fn default() -> Self {
        let unread = Unread { changes: VecDeque::new(), overflowed: false };
        Mailbox { unread: Mutex::new(unread), wake: Notify::new() }
    }
}

impl<K> Mailbox<K> {
    pub(super) fn push(&self, change: &Change<K>) {
        let mut unread = self.unread.lock();
        if unread.changes.len() >= UNREAD_CHANGES {
            unread.changes = VecDeque::new();
            unread.overflowed = true;
        }
        if !unread.overflowed {
            let Change { key, old, new } = change;
            unread.changes.push_back(Change { key: key.clone(), old: old.clone(), new: new.clone() });
        }
        drop(unread);
        self.wake.notify_one();
    }

    pub(super) fn pop(&self) -> Option<Notice<K>> {
        let mut unread = self.unread.lock();
        if std::mem::take(&mut unread.overflowed) {
            return Some(Notice::Resync);
        }
        unread.changes.pop_front().map(Notice::Change)
    }
}

/// A subscription; bounded, a slow reader gets [`Notice::Resync`].
pub struct Changes<K: Cached> {
    pub(super) mailbox: Arc<Mailbox<K>>,
    pub(super) group: Group,
}

impl<K: Cached> Changes<K> {
    /// A change that has come already; None when there is none, or when a resync is due (see [`Changes::next`]).
    pub fn next_change_now(&mut self) -> Option<Change<K>> {
        let mut unread = self.mailbox.unread.lock();
        if unread.overflowed { None } else { unread.changes.pop_front() }
    }

    /// The next notice; None when the process stops.
    pub async fn next(&mut self) -> Option<Notice<K>> {
        loop {
            if let Some(notice) = self.mailbox.pop() {
                return Some(notice);
            }
            tokio::select! {
                () = self.mailbox.wake.notified() => {}
                () = self.group.cancelled() => return None,
            }
        }
    }
}
