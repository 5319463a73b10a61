//! A worker's disk is full: it says so, and goes on when there is space again.

use std::path::PathBuf;

use excite_jobs::State;
use excite_tests::cluster::{Cluster, count};
use excite_tests::{Port, Program, Rabbit, Signal, built, eventually};

use super::{LIMIT, lines};

/// A worker on a small disk of its own, in a namespace that goes with it: nothing stays mounted.
const ON_A_SMALL_DISK: &str = r#"
mount -t tmpfs -o size=40m none "$1" || exit 99
head -c 39000000 /dev/zero > "$1/ballast"
shift
exec "$@"
"#;

#[tokio::test]
async fn a_full_disk_is_told_and_jobs_wait_until_there_is_space() {
    let namespace = ["--mount", "--propagation", "private"];
    let probe = std::process::Command::new("unshare").args(namespace).arg("true").output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        eprintln!("skipped: to make a small disk one must be root, with `unshare`");
        return;
    }
    let cluster = Cluster::start(Rabbit::shared().await.unwrap(), "full-disk").await.unwrap();
    let dispatcher = cluster.dispatcher().await.unwrap();
    // Not the one that is in the program, so that it must be fetched.
    let push = ["model", "push", "emoji", "--name", "other"];
    cluster.excite(&dispatcher, &push).await.unwrap();
    let disk = cluster.folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let port = Port::free().unwrap();
    let listen = format!("127.0.0.1:{}", port.number());
    let program = built("excite-worker").unwrap();
    let mut args: Vec<String> = namespace.map(str::to_owned).to_vec();
    args.extend(["sh", "-c", ON_A_SMALL_DISK, "sh"].map(str::to_owned));
    args.extend([disk.display().to_string(), program.display().to_string()]);
    args.extend(["--cache-dir".to_owned(), disk.join("models").display().to_string()]);
    let env = cluster.env().chain([("EXCITE_WORKER__LISTEN".to_owned(), listen.clone())]);
    let mut worker = Program::start("unshare", args, env).unwrap();
    worker.wait_http(&format!("http://{listen}/readyz"), LIMIT).await.unwrap();

    let view = cluster.submit(&dispatcher, "model=other", &lines(2, 1)).await.unwrap();
    let failed = |v: &_| count(v, State::Retrying) == 2;
    cluster.until(&dispatcher, view.id, LIMIT, "failures", failed).await.unwrap();
    let failure = eventually(LIMIT, "a record of it", async || {
        cluster.records(view.id).ok()?.into_iter().find_map(|done| done.failure)
    });
    let failure = failure.await.unwrap();
    assert_eq!(failure.class.as_str(), "transient", "{failure:?}");
    assert!(failure.message.contains("No space left"), "{failure:?}");
    // Nothing half-written takes the space that is left.
    let seen = PathBuf::from(format!("/proc/{}/root{}", worker.id(), disk.display()));
    let mut left = Vec::new();
    files(&seen, &mut left);
    assert!(left.iter().all(|path| !path.to_string_lossy().contains(".part")), "{left:?}");

    std::fs::remove_file(seen.join("ballast")).unwrap();
    let view = cluster.finished(&dispatcher, view.id, LIMIT).await.unwrap();
    assert_eq!(count(&view, State::Succeeded), 2, "{:?}", view.tally);
    worker.signal(Signal::SIGTERM).unwrap();
    let ended = worker.wait(LIMIT).await.unwrap();
    assert!(ended.success(), "{ended}");
    eventually(LIMIT, "the namespace to go", async || !seen.exists()).await.unwrap();
}

fn files(folder: &std::path::Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}
