//! What every store must do.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::{Condition, Etag, KEY_BYTES_MAX, KEY_PART_BYTES_MAX, Store, StoreError};

type Shared = Arc<dyn Store>;

/// Everything that takes no more than a moment, each in a folder of its own.
pub async fn all(store: &Shared) {
    round_trip(store).await;
    conditions(store).await;
    races(store).await;
    lists(store).await;
    odd_keys(store).await;
    refused_keys(store).await;
    deletions(store).await;
    file(store, 3 << 20).await;
    files_of_all_sizes(store).await;
    store.probe("conformance").await.unwrap();
    assert_eq!(listed(store, "probe/", None, false).await, <[&str; 0]>::default());
}

/// What was put is got, whole; what was not put is not there.
pub async fn round_trip(store: &Shared) {
    let key = "round/trip";
    assert_eq!(store.get(key).await.unwrap(), None);
    assert_eq!(store.head(key).await.unwrap(), None);
    for body in [&b"first"[..], b"", b"\x00\xff\r\n", &[7; 300_000]] {
        let etag = put(store, key, body).await;
        let object = store.get(key).await.unwrap().unwrap();
        assert!(object.body == body, "{} bytes", body.len());
        assert_eq!(object.etag, etag);
        let head = store.head(key).await.unwrap().unwrap();
        assert_eq!((head.bytes, head.etag), (body.len() as u64, etag));
    }
    let one = put(store, key, b"one").await;
    assert_ne!(one, put(store, key, b"two").await, "a change changes the version");
}

/// Conditions that hold and that do not.
pub async fn conditions(store: &Shared) {
    let key = "conditions/key";
    let conflict = Err(StoreError::Conflict(key.to_owned()));
    let body = Bytes::from_static;
    let nobody = Condition::Unchanged(put(store, "conditions/other", b"other").await);
    assert_eq!(store.put(key, body(b"0"), nobody).await, conflict, "of an absent object");
    let first = store.put(key, body(b"1"), Condition::Absent).await.unwrap();
    for again in [&b"2"[..], b"1"] {
        let put = store.put(key, body(again), Condition::Absent).await;
        assert_eq!(put, conflict, "even of the same bytes");
    }
    let second = store.put(key, body(b"2"), Condition::Unchanged(first.clone())).await.unwrap();
    assert_eq!(store.put(key, body(b"3"), Condition::Unchanged(first)).await, conflict);
    assert_eq!(read(store, key).await, &b"2"[..]);
    store.put(key, body(b"3"), Condition::Unchanged(second.clone())).await.unwrap();
    store.delete(&[key.to_owned()]).await.unwrap();
    assert_eq!(store.put(key, body(b"4"), Condition::Unchanged(second)).await, conflict);
    store.put(key, body(b"5"), Condition::Absent).await.unwrap();
    assert_eq!(read(store, key).await, &b"5"[..]);
}

/// Of 16 that race exactly one wins, and what is there is its body.
pub async fn races(store: &Shared) {
    for round in 0..3 {
        let key = format!("races/absent-{round}");
        // Large enough to be seen half written.
        let body = |racer: u8| Bytes::from(vec![racer; 50_000]);
        let winner = race(store, &key, Condition::Absent, body).await;
        assert!(read(store, &key).await == body(winner), "the winner's, whole");
        let now = store.head(&key).await.unwrap().unwrap().etag;
        let body = |racer: u8| Bytes::from(vec![racer; 60_000]);
        let winner = race(store, &key, Condition::Unchanged(now), body).await;
        assert!(read(store, &key).await == body(winner), "the winner's, whole");
    }
}

async fn race(store: &Shared, key: &str, condition: Condition, body: impl Fn(u8) -> Bytes) -> u8 {
    let racers = (0..16).map(|racer| {
        let (store, key, condition) = (Arc::clone(store), key.to_owned(), condition.clone());
        let body = body(racer);
        tokio::spawn(async move { (racer, store.put(&key, body, condition).await) })
    });
    let mut winners = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            (racer, Ok(_)) => winners.push(racer),
            (_, Err(StoreError::Conflict(_))) => {}
            (racer, Err(error)) => panic!("racer {racer}: {error}"),
        }
    }
    assert_eq!(winners.len(), 1, "{condition:?}: {winners:?}");
    winners[0]
}

/// Tasks add to a number by compare and swap, through all these stores; none of it is lost.
pub async fn counts(stores: &[Shared], tasks: usize, rounds: u32) {
    let key = "counts/number";
    put(&stores[0], key, b"0").await;
    let tasks = (0..tasks).map(|task| {
        let store = Arc::clone(&stores[task % stores.len()]);
        tokio::spawn(async move {
            for _ in 0..rounds {
                while !add_one(&store, key).await {}
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let want = tasks.len() as u32 * rounds;
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(read(&stores[0], key).await, want.to_string().into_bytes());
}

async fn add_one(store: &Shared, key: &str) -> bool {
    let object = store.get(key).await.unwrap().unwrap();
    let number: u32 = std::str::from_utf8(&object.body).unwrap().parse().unwrap();
    let body = Bytes::from((number + 1).to_string());
    match store.put(key, body, Condition::Unchanged(object.etag)).await {
        Ok(_) => true,
        Err(StoreError::Conflict(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Prefixes, folders, where to go on; in the order of bytes, which is not that of the folders.
pub async fn lists(store: &Shared) {
    let keys = ["l/a", "l/a-b/1", "l/a.txt", "l/a0", "l/b/1", "l/b/2/x", "l/b/2/y", "l/é", "l/B"];
    for key in keys {
        put(store, key, b"").await;
    }
    put(store, "lx", b"").await;
    // A folder's `/` sorts between `.` and `0`.
    put(store, "l/b.1", b"").await;
    #[rustfmt::skip]
    let table: &[(&str, Option<&str>, bool, &[&str])] = &[
        ("l/",      None,            false, &["l/B", "l/a", "l/a-b/1", "l/a.txt", "l/a0", "l/b.1", "l/b/1", "l/b/2/x", "l/b/2/y", "l/é"]),
        ("l/",      None,            true,  &["l/B", "l/a", "l/a-b/", "l/a.txt", "l/a0", "l/b.1", "l/b/", "l/é"]),
        ("l/a",     None,            true,  &["l/a", "l/a-b/", "l/a.txt", "l/a0"]),
        ("l/b/",    None,            true,  &["l/b/1", "l/b/2/"]),
        ("l/b",     None,            true,  &["l/b.1", "l/b/"]),
        ("l/",      Some("l/b/1"),   false, &["l/b/2/x", "l/b/2/y", "l/é"]),
        ("l/",      Some("l/b/"),    true,  &["l/é"]),      // strictly behind the folder
        ("l/",      Some("l/b.1"),   true,  &["l/b/", "l/é"]),
        ("l/",      Some("l/b/1"),   true,  &["l/é"]),      // inside of it is behind its name
        ("l/",      Some("l/a0"),    true,  &["l/b.1", "l/b/", "l/é"]),
        ("l/",      Some("k"),       true,  &["l/B", "l/a", "l/a-b/", "l/a.txt", "l/a0", "l/b.1", "l/b/", "l/é"]),
        ("l/",      Some("m"),       false, &[]),
        ("nothing", None,            false, &[]),
        ("none/",   None,            true,  &[]),
        ("l",       Some("l/é"),     false, &["lx"]),
    ];
    for (prefix, after, folders, want) in table {
        let got = listed(store, prefix, *after, *folders).await;
        assert_eq!(&got, want, "{prefix:?} after {after:?}, folders {folders}");
    }
}

/// Many keys come in pages, each once and in order, plain or folded.
pub async fn pages(store: &Shared, count: usize) {
    let keys: Vec<String> = (0..count).map(|i| format!("pages/{i:05}/x")).collect();
    let mut puts = tokio::task::JoinSet::new();
    for key in keys.clone() {
        let store = Arc::clone(store);
        puts.spawn(async move { store.put(&key, Bytes::new(), Condition::Always).await });
        if puts.len() == 16 {
            puts.join_next().await.unwrap().unwrap().unwrap();
        }
    }
    while let Some(put) = puts.join_next().await {
        put.unwrap().unwrap();
    }
    for folders in [false, true] {
        let (mut got, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = store.list("pages/", after.as_deref(), folders).await.unwrap();
            pages += 1;
            after = page.keys.last().cloned();
            got.extend(page.keys);
            if !page.more {
                break;
            }
            assert!(pages < count, "it goes on for ever");
        }
        let cut = |key: &String| key.trim_end_matches('x').to_owned();
        let want: Vec<String> = if folders { keys.iter().map(cut).collect() } else { keys.clone() };
        assert!(got == want, "folders {folders}: {} keys, not {count}", got.len());
        assert_eq!(pages, count.div_ceil(crate::store::PAGE_KEYS), "pages");
    }
    store.delete(&keys).await.unwrap();
    assert_eq!(listed(store, "pages/", None, false).await, <[&str; 0]>::default());
}

/// Keys that an HTTP path or an XML document would not hold as they are.
pub async fn odd_keys(store: &Shared) {
    let mut keys = [
        "a b",
        "a+b",
        "a%20b",
        "ä/日本",
        "q?x=1&y=2",
        "#",
        "<&>\"'",
        "..a",
        "~",
        "a:b",
        "e\u{301}",
    ]
    .map(|name| format!("odd/{name}"))
    .to_vec();
    for key in &keys {
        put(store, key, key.as_bytes()).await;
    }
    for key in &keys {
        assert_eq!(read(store, key).await, key.as_bytes(), "{key:?}");
    }
    keys.sort();
    assert_eq!(listed(store, "odd/", None, false).await, keys);
    store.delete(&keys).await.unwrap();
    assert_eq!(listed(store, "odd/", None, false).await, <[&str; 0]>::default());
}

/// What is refused before anything is done.
pub async fn refused_keys(store: &Shared) {
    let long_part = "x".repeat(KEY_PART_BYTES_MAX + 1);
    let long = "x/".repeat(KEY_BYTES_MAX / 2) + "x";
    for key in [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "../a",
        "a/../b",
        "a/./b",
        "a\\b",
        "a\nb",
        "a\0b",
        ".store/x",
        "a/\u{10ffff}",
        &long_part,
        &long,
    ] {
        let refused = |error: StoreError| assert!(matches!(error, StoreError::Key(_)), "{key:?}");
        refused(store.put(key, Bytes::new(), Condition::Always).await.unwrap_err());
        refused(store.get(key).await.unwrap_err());
        refused(store.head(key).await.unwrap_err());
        refused(store.delete(&["fine".to_owned(), key.to_owned()]).await.unwrap_err());
        refused(store.put_file(key, Path::new("/nowhere")).await.unwrap_err());
        refused(store.get_file(key, Path::new("/nowhere")).await.unwrap_err());
    }
}

/// What is deleted is gone; what was not there is no error.
pub async fn deletions(store: &Shared) {
    let keys = ["del/a", "del/b/c", "del/never"].map(str::to_owned);
    for key in &keys[..2] {
        put(store, key, b"x").await;
    }
    put(store, "del/b/stays", b"x").await;
    for _ in 0..2 {
        store.delete(&keys).await.unwrap();
        assert_eq!(listed(store, "del/", None, false).await, ["del/b/stays"]);
    }
    store.delete(&[]).await.unwrap();
}

/// A file of so many bytes goes there and back.
pub async fn file(store: &Shared, bytes: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (source, copy) = (folder.path().join("source"), folder.path().join("copy"));
    // No two parts of it are alike.
    let content: Vec<u8> =
        (0..bytes as u64 / 8 + 1).flat_map(|i| (i * 2_654_435_761).to_le_bytes()).collect();
    std::fs::write(&source, &content[..bytes]).unwrap();
    let key = format!("files/{bytes}");
    assert!(!store.get_file(&key, &copy).await.unwrap(), "there is none yet");
    assert!(!copy.exists());
    store.put_file(&key, &source).await.unwrap();
    assert_eq!(store.head(&key).await.unwrap().unwrap().bytes, bytes as u64);
    std::fs::write(&copy, "overwritten").unwrap();
    assert!(store.get_file(&key, &copy).await.unwrap());
    assert!(std::fs::read(&copy).unwrap() == content[..bytes], "{bytes} bytes differ");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays");
    store.delete(&[key]).await.unwrap();
}

async fn files_of_all_sizes(store: &Shared) {
    file(store, 0).await;
    file(store, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let absent = store.put_file("files/absent", &folder.path().join("absent")).await.unwrap_err();
    assert!(matches!(absent, StoreError::Damaged { .. }), "{absent}");
    put(store, "files/there", b"x").await;
    let nowhere = folder.path().join("no/folder/file");
    let unwritable = store.get_file("files/there", &nowhere).await.unwrap_err();
    assert!(matches!(unwritable, StoreError::Damaged { .. }), "{unwritable}");
}

async fn put(store: &Shared, key: &str, body: &[u8]) -> Etag {
    let put = store.put(key, Bytes::copy_from_slice(body), Condition::Always).await;
    put.unwrap_or_else(|error| panic!("{key:?}: {error}"))
}

async fn read(store: &Shared, key: &str) -> Bytes {
    let object = store.get(key).await.unwrap_or_else(|error| panic!("{key:?}: {error}"));
    object.unwrap_or_else(|| panic!("{key:?} is not there")).body
}

/// One page that is the last.
async fn listed(store: &Shared, prefix: &str, after: Option<&str>, folders: bool) -> Vec<String> {
    let page = store.list(prefix, after, folders).await.unwrap();
    assert!(!page.more);
    page.keys
}
