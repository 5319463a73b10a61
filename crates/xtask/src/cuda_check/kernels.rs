//! A copy of candle-kernels that compiles only what is used: its library for quantised models and
//! mixtures of experts takes a quarter of an hour of two cores, and none of ours is one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where the part of the build script begins that is left out, and what stands behind it.
const BEGIN: &str = "    let mut moe_sources";
const END: &str = "    Ok(())\n}";

/// Copies the crate and shortens its build script; the copy is made anew when the crate changes.
pub(super) fn copy(from: &Path, to: &Path) -> Result<PathBuf> {
    let script = from.join("build.rs");
    let script = std::fs::read_to_string(&script)
        .with_context(|| format!("cannot read {}", script.display()))?;
    let shortened = shortened(&script)?;
    // An unchanged file keeps its time, or cargo would compile all kernels again.
    let same = |path: &Path| std::fs::read_to_string(path).is_ok_and(|old| old == shortened);
    let manifest = |folder: &Path| std::fs::read(folder.join("Cargo.toml")).ok();
    if same(&to.join("build.rs")) && manifest(from) == manifest(to) {
        return Ok(to.to_owned());
    }
    if to.exists() {
        std::fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    copy_folder(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    std::fs::write(to.join("build.rs"), shortened).context("cannot write the build script")?;
    Ok(to.to_owned())
}

fn shortened(script: &str) -> Result<String> {
    let begin = script.find(BEGIN);
    let end = begin.and_then(|begin| script[begin..].find(END).map(|end| begin + end));
    let (Some(begin), Some(end)) = (begin, end) else {
        bail!("the build script of candle-kernels is another one than this command knows")
    };
    Ok(format!("{}{}", &script[..begin], &script[end..]))
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_library_is_left_out() {
        let script = "fn main() -> Result<()> {\n    ptx();\n    let mut moe_sources = 1;\n    \
                      build();\n    Ok(())\n}\n";
        let want = "fn main() -> Result<()> {\n    ptx();\n    Ok(())\n}\n";
        assert_eq!(shortened(script).unwrap(), want);
        for other in ["", "fn main() {}\n", "    let mut moe_sources"] {
            assert!(shortened(other).is_err(), "{other}");
        }
    }
}
