use super::*;
use crate::task::Group;
use serde_json::json;

#[test]
fn only_the_same_node_reads_the_same_file() {
    let scratch = tempfile::tempdir().expect("scratch");
    let vault = |secret: &[u8]| Vault::open(scratch.path(), secret).expect("opens");
    let content = b"secret secret secret secret".repeat(50);
    assert!(vault(b"mine").save("a", &content).expect("saves") > 0);
    assert_eq!(vault(b"mine").load("a").as_deref(), Some(&content[..]));
    assert_eq!(vault(b"other").load("a"), None);
    assert_eq!(vault(b"mine").load("b"), None);
    let on_disk = fs::read(scratch.path().join("a")).expect("reads");
    assert!(!on_disk.windows(6).any(|w| w == b"secret"));

    // Files cannot be swapped, cut or changed, and what another version wrote is no use.
    fs::copy(scratch.path().join("a"), scratch.path().join("b")).expect("copies");
    assert_eq!(vault(b"mine").load("b"), None);
    let flipped = |at: usize| {
        let mut bytes = on_disk.clone();
        bytes[at] ^= 1;
        bytes
    };
    let damaged = [Vec::new(), on_disk[..10].to_vec(), on_disk[..on_disk.len() - 1].to_vec(), flipped(7), flipped(30)];
    for bytes in damaged {
        fs::write(scratch.path().join("a"), bytes).expect("writes");
        assert_eq!(vault(b"mine").load("a"), None);
    }
    // What cannot be read is written over.
    assert!(vault(b"mine").save("a", &content).expect("saves") > 0);
    assert_eq!(vault(b"mine").load("a").as_deref(), Some(&content[..]));
}

#[test]
fn the_same_is_not_written_again() {
    let scratch = tempfile::tempdir().expect("scratch");
    let open = || Vault::open(scratch.path(), b"k").expect("opens");
    assert!(open().save("a", b"1").expect("saves") > 0);
    let vault = open();
    assert_eq!(vault.save("a", b"1").expect("saves"), 0);
    assert!(vault.save("a", b"2").expect("saves") > 0);
    assert_eq!(vault.save("a", b"2").expect("saves"), 0);
    assert!(vault.save("a", &vec![0; CONTENT_MAX_BYTES + 1]).is_err());
    assert_eq!(vault.load("a").as_deref(), Some(&b"2"[..]));
}

#[test]
fn large_files_are_written_rarely() {
    for (bytes, seconds) in [(0, 10), (10 << 10, 10), (60 << 10, 60), (100 << 20, 600)] {
        assert_eq!(pause_after(bytes), Duration::from_secs(seconds));
    }
}

#[test]
fn nodes_heartbeats_are_not_kept() {
    let node = |heartbeat: &str| {
        json!({"metadata": {"name": "n", "resourceVersion": heartbeat}, "spec": {"podCIDR": "10.42.0.0/24"},
            "status": {"addresses": [], "conditions": [{"lastHeartbeatTime": heartbeat}], "images": [heartbeat]}})
    };
    assert_eq!(lines::write("Node", [&node("1")]), lines::write("Node", [&node("2")]));
    assert_ne!(lines::write("Pod", [&node("1")]), lines::write("Pod", [&node("2")]));
    assert_eq!(lines::read::<serde_json::Value>("Pod", b"{\"a\":1}\n{bad\n2\n"), [json!({"a": 1}), json!(2)]);
}

#[tokio::test]
async fn books_are_there_again() {
    let scratch = tempfile::tempdir().expect("scratch");
    let open = |group: &Group| {
        let vault = Vault::open(scratch.path(), b"k").expect("opens");
        Book::<String>::open(Some(vault), "words", Duration::from_secs(600), group)
    };
    let group = Group::root();
    let book = open(&group);
    for (key, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        book.put(key, Arc::new(value.to_owned()));
    }
    book.remove("b");
    book.retain(|key| key != "c");
    group.join(Duration::from_secs(10)).await.expect("ends");
    let group = Group::root();
    let book = open(&group);
    assert_eq!(book.get("a").map(|v| v.to_string()).as_deref(), Some("1"));
    assert_eq!((book.get("b"), book.get("c")), (None, None));
    group.join(Duration::from_secs(10)).await.expect("ends");

    let nothing = Book::<String>::open(None, "words", Duration::ZERO, &Group::root());
    nothing.put("a", Arc::new("1".to_owned()));
    assert_eq!(nothing.get("a"), None);
}
