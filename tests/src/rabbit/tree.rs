//! A RabbitMQ of another Debian than this machine's: a tree of files with its packages, in which the
//! node runs. Made once, beside the programs, and kept.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::process::Recipe;

/// What has RabbitMQ 4.
const RELEASE: &str = "trixie";
/// Fetching and unpacking 250 MB.
const MAKE_LIMIT: Duration = Duration::from_secs(1200);

/// What the node needs of this machine, in a namespace that goes with it.
const ENTER: &str = r#"
tree=$1 folder=$2
shift 2
mkdir -p "$tree$folder"
mount --rbind /proc "$tree/proc" && mount --rbind /dev "$tree/dev" || exit 99
mount --bind "$folder" "$tree$folder" || exit 99
exec chroot "$tree" "$@"
"#;

/// The node of a tree; `folder` is seen in it under the same name.
pub(super) fn within(tree: &Path, folder: &Path, server: &str) -> Recipe {
    let recipe = Recipe::new("rabbitmq-server", "unshare");
    let recipe = recipe.args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "sh"]);
    recipe.arg(tree).arg(folder).arg(server)
}

/// The tree, made if it is not there.
pub(super) async fn find() -> Result<Option<PathBuf>> {
    let program = std::env::current_exe().context("where this program lies")?;
    let target = program.ancestors().find(|folder| folder.ends_with("target"));
    let tree = target.context("this program lies in no folder `target`")?.join(RELEASE);
    let answers = async |name: &str, args: &[&str]| {
        let mut command = Command::new(name);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().await.is_ok_and(|status| status.success())
    };
    if !answers("unshare", &["--mount", "--propagation", "private", "true"]).await {
        eprintln!("skipped: to run another system's RabbitMQ one must be root, with `unshare`");
        return Ok(None);
    }
    if tree.is_dir() {
        return Ok(Some(tree));
    }
    if !answers("mmdebstrap", &["--version"]).await {
        eprintln!("skipped: mmdebstrap is not here; apt-get install mmdebstrap");
        return Ok(None);
    }
    // It gets its name when all of it is there.
    let part = tree.with_extension(format!("part-{}", std::process::id()));
    let mut make = Command::new("mmdebstrap");
    make.args(["--variant=minbase", "--include=rabbitmq-server", RELEASE]).arg(&part);
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
    Ok(Some(tree))
}
