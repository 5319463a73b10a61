"""Gets promtool, amtool and Prometheus: from Debian's packages where we may, else says how."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGES = {"promtool": "prometheus", "prometheus": "prometheus", "amtool": "prometheus-alertmanager"}


def have(*programs: str) -> None:
    """Makes sure that programs are there; ends with 3, and the command to type, if they cannot be
    installed."""
    missing = sorted({PACKAGES[name] for name in programs if shutil.which(name) is None})
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"error: there is no {' or '.join(programs)}; run `sudo {' '.join(install)}`, "
              "or put the programs of Prometheus' and Alertmanager's releases into PATH", file=sys.stderr)
        sys.exit(3)
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "capture_output": True, "text": True}
    done = subprocess.run(install, check=False, **quiet)
    if done.returncode != 0:
        subprocess.run(["apt-get", "update"], check=False, **quiet)
        done = subprocess.run(install, check=False, **quiet)
    if done.returncode != 0:
        print(f"error: `{' '.join(install)}` failed:\n{done.stderr.strip()[-800:]}", file=sys.stderr)
        sys.exit(3)


def run(*words: str | Path) -> tuple[bool, str]:
    """Whether a program ended well, and what it printed."""
    command: Sequence[str] = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    return done.returncode == 0, (done.stdout + done.stderr).strip()
