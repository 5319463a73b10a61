//! What tests start for themselves: RabbitMQ, Redis and Chromium, from Debian's packages.
//!
//! Not their start: that is the tests' (tests/src).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::project::{self, Project};

/// What tests start RabbitMQ with, where the packages of Debian put it.
const RABBIT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// Asked by the packages of Debian before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// "Start none."
const REFUSAL: &str = "#!/bin/sh\nexit 101\n";

/// Sees to it that the servers are there: installs them as root on Debian, and says elsewhere how
/// to get them.
pub(crate) fn find(project: &Project) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let on_path = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
    let packages = missing(Path::new(RABBIT).is_file(), &on_path);
    if packages.is_empty() {
        return Ok(());
    }
    let root = || project::output(project.command("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if !on_path("apt-get") || !root() {
        bail!("{}", advice(&packages, on_path("apt-get")));
    }
    println!("installing {}: tests start their own", packages.join(" and "));
    let _refusal = Refusal::new(Path::new(POLICY))?;
    project::run(apt(project).arg("update"))?;
    project::run(apt(project).args(["install", "-y", "--no-install-recommends"]).args(&packages))
}

/// The packages that bring what is not there.
fn missing(rabbit: bool, on_path: &dyn Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages = Vec::new();
    // Comes with RabbitMQ, but a machine may have RabbitMQ from elsewhere.
    if !rabbit || !on_path("epmd") {
        packages.push("rabbitmq-server");
    }
    if !on_path("redis-server") {
        packages.push("redis-server");
    }
    if !on_path("openssl") {
        packages.push("openssl");
    }
    // chromedriver takes Google's Chrome as well, but does not come with either.
    let browser = ["chromium", "google-chrome"].into_iter().any(on_path);
    if !browser || !on_path("chromedriver") {
        // A machine may have no font at all, and then pages have no text.
        packages.extend(["chromium", "chromium-driver", "fonts-liberation"]);
    }
    packages
}

/// What to do where we cannot do it.
fn advice(packages: &[&str], debian: bool) -> String {
    let packages = packages.join(" ");
    if debian {
        format!(
            "missing for the tests: {packages}; run: sudo apt-get update && sudo apt-get install \
             -y --no-install-recommends {packages}"
        )
    } else {
        format!(
            "missing for the tests: {packages}, as Debian's packages install them ({RABBIT}); run \
             the tests on Debian or Ubuntu, or in a container of it"
        )
    }
}

fn apt(project: &Project) -> Command {
    let mut apt = project.command("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Keeps packages from starting services, for tests start their own on other ports; gone when
/// this is dropped, unless someone else had put it there.
struct Refusal<'a> {
    ours: Option<&'a Path>,
}

impl<'a> Refusal<'a> {
    fn new(path: &'a Path) -> Result<Self> {
        if path.exists() {
            return Ok(Self { ours: None });
        }
        let shown = path.display();
        fs::write(path, REFUSAL).with_context(|| format!("cannot write {shown}"))?;
        // From here on, whatever fails takes it away again.
        let refusal = Self { ours: Some(path) };
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, mode).with_context(|| format!("cannot permit {shown}"))?;
        Ok(refusal)
    }
}

impl Drop for Refusal<'_> {
    fn drop(&mut self) {
        let Some(path) = self.ours else { return };
        if let Err(error) = fs::remove_file(path) {
            eprintln!("warning: cannot remove {}, remove it yourself: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_there_is_installed() {
        assert_eq!(missing(true, &|_| true), [""; 0]);
        assert_eq!(missing(false, &|_| true), ["rabbitmq-server"]);
        assert_eq!(missing(true, &|name| name != "epmd"), ["rabbitmq-server"]);
        assert_eq!(missing(true, &|name| name != "redis-server"), ["redis-server"]);
        let browser = ["chromium", "chromium-driver", "fonts-liberation"];
        assert_eq!(missing(true, &|name| name != "chromium"), [""; 0], "another one is there");
        assert_eq!(missing(true, &|name| name != "chromedriver"), browser);
        let all = ["rabbitmq-server", "redis-server", "openssl"].into_iter().chain(browser);
        assert_eq!(missing(false, &|_| false), all.collect::<Vec<_>>());
    }

    #[test]
    fn who_may_not_install_is_told_the_command() {
        let command = "sudo apt-get install -y --no-install-recommends redis-server";
        let advice_there = advice(&["redis-server"], true);
        assert!(advice_there.ends_with(command), "{advice_there}");
        let elsewhere = advice(&["redis-server"], false);
        assert!(elsewhere.contains("redis-server") && elsewhere.contains(RABBIT), "{elsewhere}");
    }

    #[test]
    fn the_refusal_goes_unless_it_was_there() {
        let path = std::env::temp_dir().join(format!("policy-{}", std::process::id()));
        let refusal = Refusal::new(&path).unwrap();
        let status = Command::new(&path).status().unwrap();
        assert_eq!(status.code(), Some(101));
        drop(Refusal::new(&path).unwrap());
        assert!(path.exists(), "the second did not make it");
        drop(refusal);
        assert!(!path.exists());
    }
}
