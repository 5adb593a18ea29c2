//! Watches.

use super::*;
use crate::store::hub::RING_BYTES;

async fn watch(store: &dyn Store, prefix: &str, from: Option<u64>) -> Box<dyn Watch> {
    store.watch(KeyRange::prefix(text(prefix)), from.map(Revision)).await.expect("watches")
}

async fn shown(watch: &mut dyn Watch) -> Vec<String> {
    drain(watch).await.expect("events").iter().map(|event| show_event(event)).collect()
}

#[tokio::test]
async fn a_watch_gets_what_happens_in_its_range() {
    for backend in Backend::all() {
        let store = backend.open().await;
        put(&*store, "/a/1", "before").await;
        let mut now = watch(&*store, "/a/", None).await;
        let mut future = watch(&*store, "/a/", Some(5)).await;
        put(&*store, "/a/1", "x").await;
        put(&*store, "/b/1", "x").await;
        run(&*store, vec![Op::Delete(KeyRange::key(text("/a/1"))), put_op("/b/2", "y"), put_op("/a/2", "y")]).await;
        let last = ["Delete /a/1=@5 was /a/1=x@3", "Put /a/2=y@5 was none"];
        assert_eq!(shown(&mut *now).await, [&["Put /a/1=x@3 was /a/1=before@2"], &last[..]].concat());
        assert_eq!(shown(&mut *future).await, last);
        let mut past = watch(&*store, "/a/", Some(2)).await;
        let all = [&["Put /a/1=before@2 was none", "Put /a/1=x@3 was /a/1=before@2"], &last[..]].concat();
        assert_eq!(shown(&mut *past).await, all);
        assert_eq!(shown(&mut *past).await, [""; 0], "each once");
    }
}

#[tokio::test]
async fn a_watch_from_the_past_survives_reopening() {
    for kind in Kind::ALL {
        a_watch_from_the_past_survives(Backend::on(kind)).await;
    }
}

async fn a_watch_from_the_past_survives(backend: Backend) {
    let store = backend.open().await;
    for step in 0..3000 {
        put(&*store, &format!("/{}/{}", step % 3, step % 50), format!("{step}")).await;
    }
    delete(&*store, KeyRange::prefix(text("/2/"))).await;
    let live = shown(&mut *watch(&*store, "/2/", Some(2)).await).await;
    store.close().await.expect("closes");
    let store = backend.open().await;
    let history = shown(&mut *watch(&*store, "/2/", Some(2)).await).await;
    assert_eq!(live.len(), 1000 + 50);
    assert_eq!(history, live);
}

#[tokio::test]
async fn progress_comes_after_all_events_up_to_it() {
    for backend in Backend::local() {
        let store = backend.open().await;
        let mut idle = watch(&*store, "/idle/", None).await;
        let mut busy = watch(&*store, "/busy/", None).await;
        for step in 0..3 {
            put(&*store, "/busy/1", format!("{step}")).await;
        }
        for watch in [&mut idle, &mut busy] {
            watch.request_progress();
        }
        assert!(matches!(idle.next().await, Ok(WatchMessage::Progress(Revision(4)))));
        assert!(matches!(busy.next().await, Ok(WatchMessage::Events(events)) if events.len() == 3));
        assert!(matches!(busy.next().await, Ok(WatchMessage::Progress(Revision(4)))));
        // Never unasked, and a dropped call loses nothing.
        assert!(futures::FutureExt::now_or_never(idle.next()).is_none());
        put(&*store, "/idle/1", "x").await;
        assert!(matches!(idle.next().await, Ok(WatchMessage::Events(events)) if events.len() == 1));
    }
}

#[tokio::test]
async fn a_slow_watcher_gets_everything_or_learns_that_it_cannot() {
    for backend in Backend::local() {
        let store = backend.open().await;
        let mut slow = watch(&*store, "/a/", None).await;
        let mut lost = watch(&*store, "/a/", None).await;
        let mut idle = watch(&*store, "/idle/", None).await;
        let value = "v".repeat(100_000);
        let writes = RING_BYTES / value.len() * 3;
        for step in 0..writes {
            put(&*store, &format!("/a/{}", step % 5), &value).await;
        }
        let events = drain(&mut *slow).await.expect("from history");
        let revisions: Vec<u64> = events.iter().map(|event| event.kv.mod_revision.0).collect();
        assert_eq!(revisions, (2..2 + writes as u64).collect::<Vec<_>>());
        assert!(events.iter().skip(5).all(|event| event.previous.as_ref().is_some_and(|kv| kv.value == value)));
        store.compact(store.revision()).await.expect("compacts");
        assert!(matches!(drain(&mut *lost).await, Err(Error::Compacted(at)) if at == store.revision()));
        put(&*store, "/idle/1", "x").await;
        assert_eq!(drain(&mut *idle).await.expect("not slow").len(), 1);
        assert!(matches!(
            store.watch(KeyRange::prefix(text("")), Some(Revision(5))).await,
            Err(Error::Compacted(at)) if at.0 == 1 + writes as u64
        ));
    }
}

#[tokio::test]
async fn the_event_of_the_compacted_revision_itself_is_kept() {
    for backend in Backend::local() {
        let store = backend.open().await;
        put(&*store, "/a", "1").await;
        let gone = delete(&*store, KeyRange::key(text("/a"))).await;
        store.compact(gone).await.expect("compacts");
        put(&*store, "/b", "1").await;
        let store = match &backend {
            Backend::Memory | Backend::Etcd(_) => store,
            Backend::Local(..) => {
                store.close().await.expect("closes");
                backend.open().await
            }
        };
        let events = drain(&mut *watch(&*store, "/", Some(gone.0)).await).await.expect("events");
        let kinds: Vec<String> =
            events.iter().map(|event| format!("{:?} {}", event.kind, event.kv.mod_revision)).collect();
        assert_eq!(kinds, ["Delete 3", "Put 4"]);
    }
}

#[tokio::test]
async fn closing_ends_watches() {
    for backend in Backend::all() {
        let store = backend.open().await;
        let mut watch = watch(&*store, "/", None).await;
        store.close().await.expect("closes");
        assert!(matches!(watch.next().await, Err(Error::Closed)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_and_watchers_agree() {
    for backend in Backend::all() {
        let store = backend.open().await;
        let group = crate::task::Group::root();
        for writer in 0..20 {
            let store = store.clone();
            group.spawn("writer", async move {
                for step in 0..50 {
                    put(&*store, &format!("/{}/{step}", writer % 4), "x").await;
                }
            });
        }
        let mut watches = Vec::new();
        for prefix in ["/", "/0/", "/1/", "/2/", "/3/"] {
            watches.push(watch(&*store, prefix, Some(2)).await);
        }
        let mut counts = Vec::new();
        for (watch, wanted) in watches.iter_mut().zip([1000, 250, 250, 250, 250]) {
            let mut last = Revision(0);
            let mut count = 0;
            while count < wanted {
                let Ok(WatchMessage::Events(events)) = watch.next().await else { panic!("events") };
                for event in events {
                    assert!(event.kv.mod_revision > last, "in order");
                    last = event.kv.mod_revision;
                    count += 1;
                }
            }
            counts.push(count);
        }
        assert_eq!(counts, [1000, 250, 250, 250, 250]);
        assert_eq!(store.revision(), Revision(1001));
        group.join(std::time::Duration::from_secs(10)).await.expect("ends");
    }
}
