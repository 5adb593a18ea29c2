//! Reads, transactions, compaction, reopening.

use super::*;
use crate::store::{Compare, LeaseId, Put, Relation, Target};

const NONE: Revision = Revision(0);

#[tokio::test]
async fn an_empty_store_is_at_revision_one() {
    for backend in Backend::all() {
        let store = backend.open().await;
        assert_eq!((store.revision(), store.compacted()), (Revision(1), Revision(1)));
        let all = list(&*store, "", None).await.expect("reads");
        assert_eq!((all.revision, all.count, all.more, all.kvs.len()), (Revision(1), 0, false, 0));
    }
}

#[tokio::test]
async fn counters_follow_a_key_through_its_lives() {
    for backend in Backend::all() {
        let store = backend.open().await;
        let mut seen = Vec::new();
        for step in ["put", "put", "other", "delete", "delete", "put", "put"] {
            match step {
                "put" => put(&*store, "/a", "x").await,
                "other" => put(&*store, "/b", "x").await,
                _ => delete(&*store, KeyRange::key(text("/a"))).await,
            };
            let kv = get(&*store, "/a").await;
            seen.push(kv.map_or((0, 0, 0), |kv| (kv.create_revision.0, kv.mod_revision.0, kv.version)));
        }
        // The second delete finds nothing and takes no revision.
        assert_eq!(seen, [(2, 2, 1), (2, 3, 2), (2, 3, 2), (0, 0, 0), (0, 0, 0), (6, 6, 1), (6, 7, 2)]);
        assert_eq!(store.revision(), Revision(7));
    }
}

#[tokio::test]
async fn compares_decide_which_branch_runs() {
    for backend in Backend::all() {
        let store = backend.open().await;
        put(&*store, "/a", "1").await;
        put(&*store, "/a", "2").await;
        put(&*store, "/", "other").await;
        let (a, b) = (text("/a"), text("/b"));
        let is = |key: &Bytes, target| vec![Compare::equal(key.clone(), target)];
        let compared =
            |prefix: &str, relation, target| vec![Compare { range: KeyRange::prefix(text(prefix)), relation, target }];
        use Relation::{Equal, Greater, Less, NotEqual};
        let cases = [
            (vec![], true),
            (is(&a, Target::ModRevision(Revision(3))), true),
            (is(&a, Target::ModRevision(Revision(2))), false),
            (is(&b, Target::ModRevision(NONE)), true),
            (is(&a, Target::ModRevision(NONE)), false),
            (is(&a, Target::CreateRevision(Revision(2))), true),
            (is(&b, Target::CreateRevision(Revision(2))), false),
            (is(&a, Target::Version(2)), true),
            (is(&b, Target::Version(0)), true),
            (is(&a, Target::Value(text("2"))), true),
            (is(&a, Target::Value(text("1"))), false),
            (is(&b, Target::Value(text(""))), false),
            (is(&a, Target::Lease(LeaseId::NONE)), true),
            ([is(&a, Target::Version(2)), is(&b, Target::Version(1))].concat(), false),
            (compared("/a", Greater, Target::Version(1)), true),
            (compared("/a", Greater, Target::Version(2)), false),
            (compared("/a", Less, Target::ModRevision(Revision(4))), true),
            (compared("/a", NotEqual, Target::Value(text("1"))), true),
            (compared("/a", Less, Target::Value(text("10"))), false),
            // No key: counters are 0, and no condition on a value holds.
            (compared("/b", NotEqual, Target::Value(text("1"))), false),
            (compared("/b", Less, Target::Version(1)), true),
            // Every key of the range has to fulfil it.
            (compared("/", Equal, Target::Version(2)), false),
            (compared("/", Greater, Target::Version(0)), true),
        ];
        for (compare, wanted) in cases {
            let read = |key: &Bytes| vec![Op::Range(RangeRequest::of(KeyRange::key(key.clone())))];
            let txn = Txn { compare: compare.clone(), success: read(&a), failure: read(&b) };
            let response = store.txn(txn).await.expect("runs");
            assert_eq!(response.succeeded, wanted, "{compare:?}");
            assert_eq!(response.revision, Revision(4), "reading takes no revision");
            let [OpResponse::Range(read)] = &response.responses[..] else { panic!("one read: {response:?}") };
            assert_eq!(show(&read.kvs), if wanted { "/a=2@3" } else { "" });
        }
    }
}

#[tokio::test]
async fn steps_see_the_steps_before_them() {
    for backend in Backend::all() {
        let store = backend.open().await;
        put(&*store, "/x/a", "old").await;
        let all = || Op::Range(RangeRequest::of(KeyRange::prefix(text("/x/"))));
        let ops = vec![
            put_op("/x/b", "1"),
            all(),
            Op::Delete(KeyRange::key(text("/x/a"))),
            all(),
            put_op("/x/c", "1"),
            Op::Range(RangeRequest { revision: Some(Revision(2)), ..RangeRequest::of(KeyRange::prefix(text("/x/"))) }),
        ];
        let response = run(&*store, ops).await;
        assert_eq!(response.revision, Revision(3));
        let shown: Vec<String> = response.responses.iter().map(shown).collect();
        assert_eq!(
            shown,
            ["put none", "/x/a=old@2 /x/b=1@3", "deleted /x/a=old@2", "/x/b=1@3", "put none", "/x/a=old@2"]
        );
        assert_eq!(show(&list(&*store, "/x/", None).await.expect("reads").kvs), "/x/b=1@3 /x/c=1@3");
    }
}

fn shown(response: &OpResponse) -> String {
    match response {
        OpResponse::Put { previous: None } => "put none".into(),
        OpResponse::Put { previous: Some(kv) } => format!("put {}", show(std::slice::from_ref(kv))),
        OpResponse::Delete { previous } => format!("deleted {}", show(previous)),
        OpResponse::Range(range) => show(&range.kvs),
        OpResponse::Txn(nested) => {
            let steps: Vec<String> = nested.responses.iter().map(shown).collect();
            format!("{} [{}]", nested.succeeded, steps.join(", "))
        }
    }
}

#[tokio::test]
async fn inner_transactions_are_decided_before_outer_ones_write() {
    for backend in Backend::all() {
        let store = backend.open().await;
        put(&*store, "/a", "1").await;
        let read = || Op::Range(RangeRequest::of(KeyRange::prefix(text("/"))));
        let inner = |compare| {
            Op::Txn(Txn {
                compare: vec![compare],
                success: vec![put_op("/b", "inner"), read()],
                failure: vec![put_op("/b", "other"), Op::Delete(KeyRange::key(text("/c"))), read()],
            })
        };
        let response = run(&*store, vec![put_op("/a", "2"), inner(Compare::unchanged(text("/a"), Revision(2)))]).await;
        let shown_of = |response: &TxnResponse| response.responses.iter().map(shown).collect::<Vec<_>>();
        // The comparison sees the state before, the steps what was written: all at one revision.
        assert_eq!(shown_of(&response), ["put /a=1@2", "true [put none, /a=2@3 /b=inner@3]"]);
        let response = run(&*store, vec![put_op("/d", "1"), inner(Compare::missing(text("/x")))]).await;
        assert_eq!(shown_of(&response), ["put none", "true [put /b=inner@3, /a=2@3 /b=inner@4 /d=1@4]"]);
        let empty = Op::Txn(Txn { compare: vec![Compare::missing(text("/a"))], ..Txn::default() });
        assert_eq!(shown_of(&run(&*store, vec![empty]).await), ["false []"]);
        assert_eq!(store.revision(), Revision(4));
    }
}

#[tokio::test]
async fn puts_may_keep_value_or_lease() {
    for backend in Backend::all() {
        let store = backend.open().await;
        let lease = LeaseId(7);
        store.lease_grant(lease, 600).await.expect("grants");
        let put = |key: &str, value: Option<&str>, lease: Option<LeaseId>| Txn {
            success: vec![Op::Put(Put { key: text(key), value: value.map(text), lease })],
            ..Txn::default()
        };
        let cases = [
            ("/a", Some("1"), Some(lease), Ok(("1", lease))),
            ("/a", Some("2"), None, Ok(("2", lease))),
            ("/a", None, Some(LeaseId::NONE), Ok(("2", LeaseId::NONE))),
            ("/a", None, None, Ok(("2", LeaseId::NONE))),
            ("/b", None, Some(LeaseId::NONE), Err("key not found")),
            ("/b", Some("1"), None, Err("key not found")),
            ("/b", Some("1"), Some(LeaseId(8)), Err("requested lease not found")),
        ];
        for (key, value, lease, wanted) in cases {
            let done = store.txn(put(key, value, lease)).await;
            match wanted {
                Err(why) => assert_eq!(done.expect_err(why).to_string(), why),
                Ok((value, lease)) => {
                    let kv = get(&*store, key).await.expect("is there");
                    assert_eq!((kv.value, kv.lease), (text(value), lease));
                }
            }
        }
        assert_eq!(store.revision(), Revision(5));
    }
}

#[tokio::test]
async fn wrong_transactions_change_nothing() {
    for backend in Backend::all() {
        let store = backend.open().await;
        put(&*store, "/a", "1").await;
        let future = RangeRequest { revision: Some(Revision(9)), ..RangeRequest::of(KeyRange::key(text("/a"))) };
        let huge = "x".repeat(crate::store::MAX_TXN_BYTES + 1);
        let in_both = |op: Op| Op::Txn(Txn { success: vec![op.clone()], failure: vec![op], ..Txn::default() });
        let cases = [
            ("empty key", vec![put_op("", "x")]),
            ("long key", vec![put_op(&"k".repeat(3000), "x")]),
            ("twice", vec![put_op("/b", "1"), put_op("/b", "2")]),
            ("put and deleted", vec![put_op("/b", "1"), Op::Delete(KeyRange::prefix(text("/")))]),
            ("twice, nested", vec![put_op("/b", "1"), in_both(put_op("/b", "2"))]),
            ("put and deleted, nested", vec![in_both(put_op("/b", "1")), Op::Delete(KeyRange::prefix(text("/")))]),
            ("nested too deep", vec![(0..20).fold(put_op("/b", "1"), |op, _| in_both(op))]),
            ("too large", vec![put_op("/b", huge.clone())]),
            ("too large together", vec![in_both(put_op("/b", &huge[..huge.len() / 2]))]),
            ("too many", (0..2000).map(|i| put_op(&format!("/b{i}"), "1")).collect()),
            ("future read", vec![put_op("/b", "1"), Op::Range(future)]),
        ];
        for (name, ops) in cases {
            let result = store.txn(Txn { success: ops, ..Txn::default() }).await;
            assert!(matches!(result, Err(Error::Invalid(_) | Error::Future(_))), "{name}: {result:?}");
            assert_eq!(show(&list(&*store, "", None).await.expect("reads").kvs), "/a=1@2", "{name}");
        }
    }
}

#[tokio::test]
async fn ranges_give_what_was_asked_for() {
    for backend in Backend::all() {
        let store = backend.open().await;
        for key in ["/a", "/a/", "/a/1", "/a/2", "/a/3", "/a0", "/b", "\u{7f}"] {
            put(&*store, key, "v").await;
        }
        let range = |start: &str, end: &str| KeyRange { start: text(start), end: text(end) };
        let limited = |limit| RangeRequest { limit, ..RangeRequest::of(KeyRange::prefix(text("/a/"))) };
        let at = |revision| RangeRequest { revision: Some(Revision(revision)), ..limited(0) };
        let cases = [
            (RangeRequest::of(KeyRange::key(text("/a"))), "/a", 1, false),
            (RangeRequest::of(KeyRange::key(text("/c"))), "", 0, false),
            (limited(0), "/a/ /a/1 /a/2 /a/3", 4, false),
            (limited(2), "/a/ /a/1", 4, true),
            (limited(4), "/a/ /a/1 /a/2 /a/3", 4, false),
            (at(4), "/a/ /a/1", 2, false),
            (at(1), "", 0, false),
            (RangeRequest::of(range("/a/2", "/b")), "/a/2 /a/3 /a0", 3, false),
            (RangeRequest::of(range("/b", "/a")), "", 0, false),
            (RangeRequest::of(range("/b", "/b")), "", 0, false),
            (RangeRequest::of(range("/a3", "\0")), "/b \\x7f", 2, false),
            (RangeRequest::of(KeyRange::prefix(text(""))), "/a /a/ /a/1 /a/2 /a/3 /a0 /b \\x7f", 8, false),
            (RangeRequest { count_only: true, ..limited(1) }, "", 4, false),
        ];
        for (request, keys, count, more) in cases {
            let read = store.range(request.clone()).await.expect("reads");
            let found: Vec<String> = read.kvs.iter().map(|kv| kv.key.escape_ascii().to_string()).collect();
            assert_eq!((found.join(" "), read.count, read.more), (keys.into(), count, more), "{request:?}");
            assert!(read.kvs.iter().all(|kv| kv.value == "v"));
            assert_eq!(read.revision, Revision(9));
        }
        let keys = store.range(RangeRequest { keys_only: true, ..limited(0) }).await.expect("reads");
        assert!(keys.kvs.len() == 4 && keys.kvs.iter().all(|kv| kv.value.is_empty() && kv.version == 1));
    }
}

#[tokio::test]
async fn old_revisions_stay_exact_until_they_are_compacted() {
    for backend in Backend::all() {
        let store = backend.open().await;
        let mut states = vec![String::new(); 2];
        for step in 0..30 {
            let key = format!("/k/{}", step % 4);
            match step % 7 {
                5 => delete(&*store, KeyRange::key(text(key))).await,
                _ => put(&*store, &key, format!("v{step}")).await,
            };
            let now = show(&list(&*store, "/k/", None).await.expect("reads").kvs);
            states.resize(store.revision().0 as usize + 1, now.clone());
        }
        let last = store.revision().0;
        for compacted in [1, 7, 7, 3, 15, last] {
            let before = store.compacted();
            let done = store.compact(Revision(compacted)).await;
            if compacted <= before.0 {
                assert!(matches!(done, Err(Error::Compacted(at)) if at == before), "{compacted}: {done:?}");
            } else {
                done.expect("compacts");
            }
            let floor = store.compacted().0;
            for revision in 1..=last {
                let read = list(&*store, "/k/", Some(Revision(revision))).await;
                if revision < floor {
                    assert!(matches!(read, Err(Error::Compacted(at)) if at.0 == floor), "{revision}: {read:?}");
                } else {
                    assert_eq!(show(&read.expect("reads").kvs), states[revision as usize], "at {revision}");
                }
            }
        }
        assert!(matches!(list(&*store, "", Some(Revision(last + 1))).await, Err(Error::Future(at)) if at.0 == last));
        assert!(matches!(store.compact(Revision(last + 1)).await, Err(Error::Future(_))));
    }
}

#[tokio::test]
async fn values_of_any_size_come_back() {
    let sizes = [0, 1, 255, 256, 4096, 5_900, 6_000, 6_100, 70_000, 1 << 20, 3 << 20];
    let value = |size: usize, noise: bool| -> Bytes {
        let mut state = size as u64;
        let byte = |_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            if noise { (state >> 33) as u8 } else { b'a' + (state >> 62) as u8 }
        };
        (0..size).map(byte).collect::<Vec<_>>().into()
    };
    for kind in Kind::ALL {
        let backend = Backend::on(kind);
        for reopened in [false, true] {
            let store = backend.open().await;
            for (position, size) in sizes.into_iter().enumerate() {
                for noise in [false, true] {
                    let key = format!("/{position}/{noise}");
                    if !reopened {
                        run(&*store, vec![Op::put(text(&key), value(size, noise))]).await;
                    }
                    assert_eq!(get(&*store, &key).await.expect("is there").value, value(size, noise), "{key}");
                }
            }
            if reopened {
                // Nothing may have gone to sled's unsynced blob files, not even while leaves merge.
                delete(&*store, KeyRange::prefix(text("/1"))).await;
                store.compact(store.revision()).await.expect("compacts");
            }
            store.close().await.expect("closes");
        }
        let Backend::Local(Kind::Sled, path) = &backend else { continue };
        let blobs = std::fs::read_dir(path.path().join("store/sled/blobs")).expect("lists").count();
        assert_eq!(blobs, 0);
    }
}

#[tokio::test]
async fn a_closed_store_answers_nothing_and_can_be_opened_again() {
    for backend in Backend::all() {
        let store = backend.open().await;
        put(&*store, "/a", "1").await;
        store.close().await.expect("closes");
        store.close().await.expect("closes twice");
        assert!(matches!(list(&*store, "", None).await, Err(Error::Closed)));
        assert!(matches!(store.txn(Txn::default()).await, Err(Error::Closed)));
        assert!(matches!(store.compact(Revision(1)).await, Err(Error::Closed)));
        assert!(matches!(store.watch(KeyRange::prefix(text("")), None).await, Err(Error::Closed)));
        if let Backend::Local(..) = backend {
            let again = backend.open().await;
            assert_eq!(show(&list(&*again, "", None).await.expect("reads").kvs), "/a=1@2");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let scratch = tempfile::tempdir().expect("scratch");
    let open = |path: &std::path::Path| Local::open(path, Options::default());
    let taken = scratch.path().join("taken");
    let _store = open(&taken).expect("opens");
    let file = scratch.path().join("file");
    std::fs::write(&file, "x").expect("writes");
    let foreign = scratch.path().join("foreign");
    ::sled::open(foreign.join("sled")).expect("opens").insert("a", "b").expect("inserts");
    let cases = [(taken, "in use by another process"), (file, "irectory"), (foreign, "not a store")];
    for (path, wanted) in cases {
        let error = open(&path).err().expect("does not open").to_string();
        assert!(error.contains(wanted) && error.contains(path.to_str().expect("text")), "{error}");
    }
}
