//! Fetches that break off, and how they go on.

use std::cell::Cell;
use std::time::{Duration, Instant};

use excite_hub::{Error, Hub, Progress, Waits};

use crate::server::{Answer, Repository, Request, Server, ranged};
use crate::{code, fetch, hub, names, never, snapshot};

/// Bytes that are different everywhere.
fn content(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Bytes asked from, for each request of a file.
fn ranges(server: &Server) -> Vec<Option<usize>> {
    server.requests("/resolve/").iter().map(Request::from).collect()
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke_off() {
    let bytes = content(5000);
    let whole = bytes.clone();
    let rule = move |request: &Request, before| {
        let answer = ranged(&whole, request);
        Some(match before {
            0 => answer.cut(2000),
            1 => answer.cut(1500),
            _ => answer,
        })
    };
    let server = Server::new(Repository::of(&[("a", &bytes)]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    fetch(&server, folder.path()).unwrap();
    // The server sends from there on only, so nothing came twice.
    assert_eq!(ranges(&server), [None, Some(2000), Some(3500)]);
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), bytes);
}

#[test]
fn a_server_without_ranges_is_asked_for_everything_again() {
    let bytes = content(5000);
    let whole = bytes.clone();
    let rule = move |_: &Request, before| {
        let answer = Answer::new(200, whole.clone());
        Some(if before == 0 { answer.cut(2000) } else { answer })
    };
    let server = Server::new(Repository::of(&[("a", &bytes)]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    fetch(&server, folder.path()).unwrap();
    assert_eq!(ranges(&server), [None, Some(2000)]);
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), bytes);
}

#[test]
fn a_range_that_begins_elsewhere_is_not_appended() {
    let bytes = content(5000);
    let whole = bytes.clone();
    let rule = move |request: &Request, before| match before {
        0 => Some(ranged(&whole, request).cut(2000)),
        1 => Some(Answer::new(206, &whole[1000..]).with("Content-Range", "bytes 1000-4999/5000")),
        _ => None,
    };
    let server = Server::new(Repository::of(&[("a", &bytes)]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    fetch(&server, folder.path()).unwrap();
    assert_eq!(ranges(&server), [None, Some(2000), None]);
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), bytes);
}

#[test]
fn a_connection_that_always_breaks_ends_in_an_error() {
    let bytes = content(5000);
    let whole = bytes.clone();
    let rule = move |request: &Request, _| Some(ranged(&whole, request).cut(100));
    let server = Server::new(Repository::of(&[("a", &bytes)]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    let error = fetch(&server, folder.path()).unwrap_err();
    let cut = matches!(error, Error::Cut { bytes: 400, expected: 5000, attempts: 4, .. });
    assert!(cut, "{error:?}");
    assert_eq!(ranges(&server), [None, Some(100), Some(200), Some(300)]);
    assert_eq!(std::fs::read(folder.path().join("a.part")).unwrap(), bytes[..400]);
    assert!(!folder.path().join("a").exists());
}

#[test]
fn good_progress_renews_the_attempts() {
    let bytes = content(12 << 20);
    let whole = bytes.clone();
    let rule = move |request: &Request, _| {
        let left = whole.len() - request.from().unwrap_or(0);
        Some(ranged(&whole, request).cut(left.min(3 << 19)))
    };
    let server = Server::new(Repository::of(&[("a", &bytes)]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    fetch(&server, folder.path()).unwrap();
    assert_eq!(ranges(&server).len(), 8);
}

#[test]
fn bytes_that_come_twice_are_no_progress() {
    let bytes = content(6 << 20);
    let whole = bytes.clone();
    let rule = move |_: &Request, _| Some(Answer::new(200, whole.clone()).cut(3 << 20));
    let server = Server::new(Repository::of(&[("a", &bytes)]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(code(fetch(&server, folder.path())), "hub_cut");
    // The first one was progress.
    assert!(ranges(&server).len() <= 5, "{:?}", ranges(&server));
}

#[test]
fn what_an_earlier_fetch_left_is_continued() {
    let bytes = content(5000);
    let server = Server::new(Repository::of(&[("a", &bytes)]));
    for (left, requests) in [(&bytes[..3000], vec![Some(3000)]), (&bytes[..], vec![])] {
        let folder = tempfile::tempdir().unwrap();
        let before = ranges(&server).len();
        std::fs::write(folder.path().join("a.part"), left).unwrap();
        fetch(&server, folder.path()).unwrap();
        assert_eq!(ranges(&server)[before..], requests);
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), bytes);
        assert_eq!(names(folder.path()), [".fetch.lock", "a", "source.json"]);
    }
}

#[test]
fn a_part_of_something_else_is_thrown_away() {
    let bytes = content(5000);
    let server = Server::new(Repository::of(&[("a", &bytes)]));
    // Of another revision; of one that was longer.
    for (left, requests) in [(3000, vec![Some(3000), None]), (9000, vec![None])] {
        let folder = tempfile::tempdir().unwrap();
        let before = ranges(&server).len();
        std::fs::write(folder.path().join("a.part"), vec![0; left]).unwrap();
        fetch(&server, folder.path()).unwrap();
        assert_eq!(ranges(&server)[before..], requests);
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), bytes);
    }
}

#[test]
fn a_range_that_the_server_does_not_have_begins_the_file_anew() {
    let bytes = content(5000);
    let rule = |request: &Request, _| request.from().map(|_| Answer::new(416, ""));
    let server = Server::new(Repository::of(&[("a", &bytes)]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.part"), &bytes[..3000]).unwrap();
    fetch(&server, folder.path()).unwrap();
    assert_eq!(ranges(&server), [Some(3000), None]);
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), bytes);
}

#[test]
fn who_asks_to_stop_can_go_on_later() {
    let bytes = content(4 << 20);
    let server = Server::new(Repository::of(&[("a", &bytes)]));
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(&server);
    let reached = Cell::new(0);
    let mut progress = |at: Progress<'_>| reached.set(at.bytes);
    let stop = || reached.get() > 0;
    let stopped =
        hub(&server).fetch(&snapshot, &snapshot.files, folder.path(), &mut progress, &stop);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    let part = std::fs::read(folder.path().join("a.part")).unwrap();
    assert_eq!(part.len() as u64, reached.get());
    assert!(part.len() < bytes.len() / 2 && bytes.starts_with(&part), "{}", part.len());
    assert!(!folder.path().join("source.json").exists());

    fetch(&server, folder.path()).unwrap();
    assert_eq!(ranges(&server), [None, Some(part.len())]);
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), bytes);
}

#[test]
fn who_asks_to_stop_need_not_wait_for_a_silent_server() {
    let rule = |request: &Request, _| Some(ranged(&[1; 500], request).silent(100));
    let server = Server::new(Repository::of(&[("a", &[1; 500])]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(&server);
    let started = Instant::now();
    let reached = Cell::new(0);
    let mut progress = |at: Progress<'_>| reached.set(at.bytes);
    let stop = || reached.get() == 100;
    let stopped =
        hub(&server).fetch(&snapshot, &snapshot.files, folder.path(), &mut progress, &stop);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert!(started.elapsed() < Waits::default().idle / 2);
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let rule =
        |request: &Request, before| (before == 0).then(|| ranged(&[1; 500], request).silent(100));
    let server = Server::new(Repository::of(&[("a", &[1; 500])]).rule("/resolve/", rule));
    let folder = tempfile::tempdir().unwrap();
    let snapshot = snapshot(&server);
    let waits = Waits {
        idle: Duration::from_millis(300),
        backoff: Duration::from_millis(1),
        ..Waits::default()
    };
    let hub = Hub::new(server.address(), None).unwrap().with_waits(waits);
    hub.fetch(&snapshot, &snapshot.files, folder.path(), &mut |_| (), &never).unwrap();
    assert_eq!(ranges(&server), [None, Some(100)]);
}

#[test]
fn an_overloaded_server_is_asked_again() {
    for status in [503, 429, 500, 502, 504] {
        let rule = move |_: &Request, before| (before < 2).then(|| Answer::new(status, ""));
        let server = Server::new(Repository::of(&[("a", b"hello")]).rule("", rule));
        let folder = tempfile::tempdir().unwrap();
        fetch(&server, folder.path()).unwrap();
        assert_eq!(server.requests("/api/").len(), 3, "{status}");
        assert_eq!(server.requests("/resolve/").len(), 3, "{status}");
    }
}

#[test]
fn a_server_that_stays_overloaded_is_left_alone() {
    let rule = |_: &Request, _| Some(Answer::new(503, ""));
    let server = Server::new(Repository::of(&[]).rule("/api/", rule));
    let error = hub(&server).snapshot("owner/name", "main", &never).unwrap_err();
    assert!(matches!(error, Error::Unavailable { status: 503, attempts: 4, .. }), "{error:?}");
    assert_eq!(server.requests("").len(), 4);
}

#[test]
fn a_wait_that_the_server_asks_for_is_kept_if_it_is_not_too_long() {
    let busy = |seconds| {
        let rule = move |_: &Request, before| {
            (before == 0).then(|| Answer::new(429, "").with("Retry-After", seconds))
        };
        Server::new(Repository::of(&[]).rule("/api/", rule))
    };
    let server = busy("1");
    let started = Instant::now();
    snapshot(&server);
    assert!(started.elapsed() >= Duration::from_secs(1));

    let server = busy("3600");
    let error = hub(&server).snapshot("owner/name", "main", &never).unwrap_err();
    assert!(matches!(error, Error::Unavailable { wait_s: Some(3600), .. }), "{error:?}");
    assert!(error.advice().1.contains("3600 s"));
    assert_eq!(server.requests("").len(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_from_other_errors() {
    let server = Server::new(Repository::of(&[("a", &[1; 500])]));
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", folder.path().join("a.part")).unwrap();
    let error = fetch(&server, folder.path()).unwrap_err();
    assert!(matches!(error, Error::DiskFull { missing: 500, .. }), "{error:?}");
    assert!(error.advice().1.contains("500 bytes"));
}
