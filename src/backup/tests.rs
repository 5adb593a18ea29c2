use super::*;
use crate::store::local::{Local, Options};
use crate::store::memory::Memory;
use crate::store::{KeyRange, Op, RangeRequest, Txn};

struct Host {
    scratch: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Host { scratch: tempfile::tempdir().expect("scratch") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::create_dir_all(self.path(name).parent().expect("parent")).expect("creates");
        durable::write(&self.path(name), text.as_bytes(), mode).expect("writes");
    }

    /// A host with a server's files and a store of two keys.
    async fn with_server() -> Self {
        let host = Host::new();
        host.write("data/server/tls/ca.key", "secret", 0o600);
        host.write("data/server/manifests/app.yaml", "kind: Pod", 0o644);
        host.write("data/server/node-token", "K10", 0o600);
        host.write("data/server/db/log/000001.seg", "not to be saved", 0o600);
        host.write("data/agent/x", "not to be saved", 0o600);
        host.write("data/node-name", "edge-1\n", 0o644);
        host.write("etc/config.yaml", "tls-san: [a]", 0o600);
        host.write("etc/config.yaml.d/10.yaml", "x: y", 0o644);
        let store = Memory::open();
        for (key, value) in [("/registry/a", "1"), ("/registry/b", "2"), ("/registry/a", "3")] {
            store.txn(Txn { success: vec![Op::put(key, value)], ..Txn::default() }).await.expect("writes");
        }
        let file = File::create(host.path("snapshot")).expect("creates");
        snapshots::write(&*store, file).await.expect("is written");
        host
    }

    fn save(&self, passphrase: Option<&str>) -> Summary {
        let (data_dir, config, snapshot) = (self.path("data"), self.path("etc/config.yaml"), self.path("snapshot"));
        let source = Source { data_dir: &data_dir, config: &config, snapshot: &snapshot };
        save(&source, &self.path("saved.kedge-backup"), passphrase).expect("is saved")
    }
}

#[tokio::test]
async fn a_backup_comes_back_on_another_host() {
    for passphrase in [None, Some("correct horse")] {
        let old = Host::with_server().await;
        let saved = old.save(passphrase);
        assert_eq!((saved.host.as_str(), saved.revision), ("edge-1", 4));
        let backup = old.path("saved.kedge-backup");
        assert_eq!(check(&backup, passphrase).expect("is whole"), saved);
        assert_eq!(is_sealed(&backup).expect("reads"), passphrase.is_some());
        let plain = fs::read(&backup).expect("reads").windows(6).any(|window| window == b"secret");
        assert_eq!(plain, passphrase.is_none());

        let new = Host::new();
        let (data, config) = (new.path("data"), new.path("etc/config.yaml"));
        let restored = restore(&backup, passphrase, &data, &config, false).expect("is restored");
        assert_eq!((restored.summary, restored.config.as_ref(), restored.before), (saved, Some(&config), None));
        let read = |name: &str| fs::read_to_string(new.path(name)).unwrap_or_default();
        assert_eq!(read("data/server/tls/ca.key"), "secret");
        assert_eq!(
            fs::metadata(new.path("data/server/tls/ca.key")).expect("is there").permissions().mode() & 0o777,
            0o600
        );
        assert_eq!([read("etc/config.yaml"), read("etc/config.yaml.d/10.yaml")], ["tls-san: [a]", "x: y"]);
        assert!(!data.join("agent").exists() && !data.join("restoring").exists());

        let store = Local::open(data.join("server/db"), Options::default()).expect("opens");
        assert!(store.revision().0 > 1_000_000_000 && store.compacted() == store.revision());
        let all = store.range(RangeRequest::of(KeyRange::prefix("/"))).await.expect("reads").kvs;
        let shown: Vec<_> = all.iter().map(|kv| (&kv.key[..], &kv.value[..], kv.mod_revision.0, kv.version)).collect();
        assert_eq!(shown, [(&b"/registry/a"[..], &b"3"[..], 4, 2), (b"/registry/b", b"2", 3, 1)]);
        let put = Txn { success: vec![Op::put("/registry/c", "4")], ..Txn::default() };
        let wrote = store.txn(put).await.expect("writes").revision;
        assert!(wrote.0 > 1_000_000_000);

        // A server that runs is left alone, and what is there is not overwritten.
        let refused = |force| {
            let error = restore(&backup, passphrase, &data, &config, force).err().expect("is refused");
            format!("{error:#}")
        };
        assert!(refused(false).contains("--force"));
        assert!(refused(true).contains("is the server stopped?"));
        store.close().await.expect("closes");
        drop(store);
        let again = restore(&backup, passphrase, &data, &config, true).expect("is restored");
        assert!(again.before.is_some_and(|path| path.join("tls/ca.key").exists()));
        assert_eq!(again.config, Some(config.with_extension("restored.yaml")));
    }
}

#[tokio::test]
async fn damaged_backups_change_nothing() {
    let old = Host::with_server().await;
    old.save(None);
    let whole = fs::read(old.path("saved.kedge-backup")).expect("reads");
    let new = Host::new();
    let data = new.path("data");
    for at in (0..whole.len()).step_by(whole.len() / 97) {
        for cut in [false, true] {
            let mut bytes = whole.clone();
            match cut {
                true => bytes.truncate(at),
                false => bytes[at] ^= 0x41,
            }
            fs::write(new.path("damaged"), &bytes).expect("writes");
            match restore(&new.path("damaged"), None, &data, &new.path("config.yaml"), false) {
                Err(_) => assert!(!data.join("server").exists(), "at {at}"),
                // Padding and times are not content.
                Ok(_) => {
                    assert!(!cut || at > whole.len() - 2048, "cut at {at} of {}", whole.len());
                    assert_eq!(fs::read(data.join("server/tls/ca.key")).expect("is there"), b"secret");
                    fs::remove_dir_all(&data).expect("removes");
                    let _ = fs::remove_file(new.path("config.yaml"));
                    let _ = fs::remove_dir_all(new.path("config.yaml.d"));
                }
            }
        }
    }
}

#[test]
fn entries_outside_are_refused() {
    let scratch = tempfile::tempdir().expect("scratch");
    let path = scratch.path().join("evil");
    let mut archive = Archive { tar: tar::Builder::new(Vec::new()), sums: String::new() };
    let mut head = header(0o600, 1);
    // The library would refuse to write it.
    head.as_gnu_mut().expect("gnu").name[..13].copy_from_slice(b"server/../../");
    head.set_cksum();
    archive.tar.append(&head, &b"x"[..]).expect("appends");
    fs::write(&path, archive.tar.into_inner().expect("finishes")).expect("writes");
    let error = restore(&path, None, &scratch.path().join("data"), Path::new("/nowhere/c.yaml"), false);
    assert!(error.err().expect("is refused").to_string().contains("does not belong"));
}
