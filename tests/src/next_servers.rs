//! RabbitMQ 4 and Valkey 8 instead of the oldest servers that are supported: from the packages of
//! Debian 13, in a tree of files of their own in which the servers run.
//!
//! Asked for by `EXCITE_TEST_SERVERS=debian-13`. The tree is made once, beside the programs, and kept.

use std::env::{self, VarError};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Command;
use tokio::sync::OnceCell;

const VARIABLE: &str = "EXCITE_TEST_SERVERS";
/// Its only value, and the name of the tree.
const NAME: &str = "debian-13";
const RELEASE: &str = "trixie";
/// Fetching and unpacking 250 MB.
const MAKE_LIMIT: Duration = Duration::from_secs(1200);

/// What a server needs of this machine, in a namespace that goes with it: folders keep their names.
const ENTER: &str = r#"
tree=$1 folders=$2
shift 2
mkdir -p "$tree$folders"
mount --rbind /proc "$tree/proc" && mount --rbind /dev "$tree/dev" || exit 99
mount --bind "$folders" "$tree$folders" || exit 99
exec chroot "$tree" "$@"
"#;

/// Whether tests should run on them.
pub(crate) fn wanted() -> Result<bool> {
    match env::var(VARIABLE).as_deref() {
        Err(VarError::NotPresent) => Ok(false),
        Ok(NAME) => Ok(true),
        other => bail!("{VARIABLE} is {other:?}; it may be `{NAME}`, or left out"),
    }
}

/// How to start a program of a server, whose folder lies beside those of what else it reads: this
/// machine's program, or, where tests should run on the next servers, one that enters the tree, with
/// its first arguments.
pub(crate) async fn find(folder: &Path, program: &str) -> Result<(OsString, Vec<OsString>)> {
    static TREE: OnceCell<PathBuf> = OnceCell::const_new();
    if !wanted()? {
        return Ok((program.into(), Vec::new()));
    }
    let tree = TREE.get_or_try_init(make).await?;
    let folders = folder.parent().context("the folder of a server is the root")?;
    let enter = ["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"];
    let inner = [tree.as_os_str(), folders.as_os_str(), program.as_ref()];
    let args = enter.map(OsString::from).into_iter().chain(inner.map(OsString::from));
    Ok(("unshare".into(), args.collect()))
}

/// The tree, made if it is not there.
async fn make() -> Result<PathBuf> {
    let program = env::current_exe().context("where this program lies")?;
    let target = program.ancestors().find(|folder| folder.ends_with("target"));
    let tree = target.context("this program lies in no folder `target`")?.join(NAME);
    let unshare = succeeds("unshare", &["--mount", "--propagation", "private", "true"]).await;
    ensure!(unshare, "to run another system's servers one must be root, with `unshare`");
    if tree.is_dir() {
        return Ok(tree);
    }
    let there = succeeds("mmdebstrap", &["--version"]).await;
    ensure!(there, "mmdebstrap is not here; run: sudo apt-get install mmdebstrap");
    // It gets its name when all of it is there.
    let part = tree.with_extension(format!("part-{}", std::process::id()));
    let mut make = Command::new("mmdebstrap");
    make.args(["--variant=minbase", "--include=rabbitmq-server,valkey-server", RELEASE]).arg(&part);
    let made = tokio::time::timeout(MAKE_LIMIT, make.kill_on_drop(true).output()).await;
    let made = made.context("mmdebstrap does not end")?.context("mmdebstrap")?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        // Half of it serves nobody.
        let _ = std::fs::remove_dir_all(&part);
        bail!("mmdebstrap ended with {}: {said}", made.status);
    }
    std::fs::copy("/etc/hosts", part.join("etc/hosts")).context("the names of this machine")?;
    match std::fs::rename(&part, &tree) {
        // Another test was faster.
        Err(_) if tree.is_dir() => std::fs::remove_dir_all(&part).context("the second tree")?,
        renamed => renamed.context("the tree cannot get its name")?,
    }
    Ok(tree)
}

async fn succeeds(name: &str, args: &[&str]) -> bool {
    let mut command = Command::new(name);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}
