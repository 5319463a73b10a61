"""Where the checks of the chart run: a Python with their packages, and Helm, both made once in
target/ops/chart from package registries alone.

Helm is that of the package helm-sdkpy: Helm 4 as a shared library. The package itself asks for a
newer Python than Debian 12 has; the library does not.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts/excite"
CACHE = ROOT / "target/ops/chart"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
HELM_SDK = "0.1.32"
# Says to a process that it is the one that was started here.
INSIDE = "EXCITE_CHART_CHECKS"


class SetupError(Exception):
    """What the checks need cannot be had; the text says what to do."""


def enter() -> None:
    """Starts the running script again under the right Python, unless it is that already. Call it
    before anything of the packages is imported."""
    if os.environ.get(INSIDE) == "1":
        return
    try:
        python = interpreter()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3)
    # Helm's library reads this when it is loaded; releases are then kept in memory.
    os.environ.update({INSIDE: "1", "HELM_DRIVER": "memory"})
    sys.stdout.flush()
    os.execv(python, [str(python), *sys.orig_argv[1:]])


def interpreter() -> Path:
    """A virtual environment that has what requirements.txt asks for."""
    folder = CACHE / "python"
    python, stamp = folder / "bin/python", folder / "requirements.txt"
    wanted = REQUIREMENTS.read_text()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(
        f"installing the packages of {REQUIREMENTS.relative_to(ROOT)} into "
        f"{folder.relative_to(ROOT)}, once",
        file=sys.stderr,
    )
    # A virtual environment of Debian's own Python needs a package, which fails late if absent.
    made = run([sys.executable, "-m", "venv", "--clear", str(folder)], may_fail=True)
    if not made and os.geteuid() == 0:
        run(["apt-get", "update", "--quiet"], may_fail=True)
        run(["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "python3-venv"])
        made = run([sys.executable, "-m", "venv", "--clear", str(folder)], may_fail=True)
    if not made:
        raise SetupError(
            "python3 cannot make a virtual environment; install python3-venv "
            "(`apt-get install python3-venv`)"
        )
    run(
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            str(REQUIREMENTS),
        ]
    )
    stamp.write_text(wanted)
    return python


def helm_library() -> Path:
    """Helm as a shared library."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    folder = CACHE / f"helm-{HELM_SDK}"
    library = folder / "libhelm_sdkpy.so"
    if library.exists():
        return library
    print(
        f"fetching helm-sdkpy {HELM_SDK} into {folder.relative_to(ROOT)}, once (about 50 MB)",
        file=sys.stderr,
    )
    run(
        [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            "--python-version",
            "3.12",
            "--dest",
            str(folder),
            f"helm-sdkpy=={HELM_SDK}",
        ]
    )
    inside = f"helm_sdkpy/_lib/linux-{machine}/{library.name}"
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as packed:
            if inside not in packed.namelist():
                raise SetupError(
                    f"helm-sdkpy {HELM_SDK} has no library for {machine}; run the "
                    "checks on a machine with x86_64"
                )
            # Whole or not there: a library that was cut off would be taken for one.
            half = library.with_suffix(".tmp")
            half.write_bytes(packed.read(inside))
            half.rename(library)
        wheel.unlink()
    return library


def run(command: list[str], may_fail: bool = False) -> bool:
    """Runs a program of the set-up; whether it ended well."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not may_fail:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        raise SetupError(f"`{' '.join(command)}` ended with {done.returncode}:\n{last}")
    return done.returncode == 0
