//! Checking a folder against its `source.json`.

use std::fs;

use excite_hub::{Damage, Error, Mismatch, Source};

use crate::server::{Repository, Server};
use crate::{code, fetch, never};

#[test]
fn every_damage_is_found() {
    let files: &[(&str, &[u8])] = &[
        ("a/changed", &[1; 500]),
        ("a/cut", &[2; 500]),
        ("a/gone", b"hello"),
        ("a/grown", b"hello"),
        ("a/is_folder", b"hello"),
        ("a/right", b"hello"),
    ];
    let server = Server::new(Repository::of(files));
    let folder = tempfile::tempdir().unwrap();
    fetch(&server, folder.path()).unwrap();
    let source = Source::read(folder.path()).unwrap();
    let mut last = None;
    let clean = source.verify(folder.path(), &mut |at| last = Some((at.done, at.total)), &never);
    assert_eq!((clean.unwrap(), last), (vec![], Some((1020, 1020))));

    let at = |name: &str| folder.path().join("a").join(name);
    let mut changed = vec![1; 500];
    changed[499] = 0;
    fs::write(at("changed"), changed).unwrap();
    fs::write(at("cut"), [2; 499]).unwrap();
    fs::remove_file(at("gone")).unwrap();
    fs::write(at("grown"), "hello\n").unwrap();
    fs::remove_file(at("is_folder")).unwrap();
    fs::create_dir(at("is_folder")).unwrap();
    let found = source.verify(folder.path(), &mut |_| (), &never).unwrap();
    let [changed, cut, gone, grown, is_folder] = &found[..] else { panic!("{found:?}") };
    let is = |mismatch: &Mismatch, path: &str, damage: &Damage| {
        assert_eq!((mismatch.path.as_str(), &mismatch.damage), (path, damage));
    };
    assert!(matches!(&changed.damage, Damage::Digest { expected, found } if expected != found));
    assert_eq!(changed.path, "a/changed");
    is(cut, "a/cut", &Damage::Size { expected: 500, found: 499 });
    is(gone, "a/gone", &Damage::Missing);
    is(grown, "a/grown", &Damage::Size { expected: 5, found: 6 });
    assert!(matches!(&is_folder.damage, Damage::Unreadable(_)), "{is_folder:?}");

    fs::remove_dir(at("is_folder")).unwrap();
    fetch(&server, folder.path()).unwrap();
    assert_eq!(source.verify(folder.path(), &mut |_| (), &never).unwrap(), []);
}

#[test]
fn a_check_can_be_stopped() {
    let server = Server::new(Repository::of(&[("a", b"hello")]));
    let folder = tempfile::tempdir().unwrap();
    let source = fetch(&server, folder.path()).unwrap();
    let stopped = source.verify(folder.path(), &mut |_| (), &|| true);
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
}

#[test]
fn a_wrong_source_json_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(code(Source::read(folder.path())), "file_system");
    let with = |v: u32, path: &str, sha256: &str| {
        format!(
            r#"{{"v":{v},"repository":"a/b","revision":"main","commit":"c","licence":null,
            "files":[{{"path":"{path}","bytes":1,"sha256":"{sha256}"}}]}}"#
        )
    };
    let sha256 = "0".repeat(64);
    for (text, want) in [
        (String::new(), "source_json"),
        ("{}".into(), "source_json"),
        (with(2, "a", &sha256), "source_json"),
        (with(1, "a", "0"), "source_json"),
        (with(1, "../a", &sha256), "unsafe_path"),
    ] {
        fs::write(folder.path().join("source.json"), &text).unwrap();
        assert_eq!(code(Source::read(folder.path())), want, "{text}");
    }
    fs::write(folder.path().join("source.json"), with(1, "a", &sha256)).unwrap();
    assert_eq!(Source::read(folder.path()).unwrap().files.len(), 1);
}
