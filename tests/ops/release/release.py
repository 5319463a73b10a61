#!/usr/bin/env python3
"""The steps of a release, as .github/workflows/release.yaml takes them one after the other.

`archive` and `checksums` work anywhere; the others drive docker, helm or gh. `--dry-run` shows what
they would run. docs/release.md says how a release is made.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = ("excite", "excite-dispatcher", "excite-worker")
IMAGES = ("worker", "dispatcher", "cli")
# As docker calls the machines that cargo and uname call so.
DOCKER_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}


def fail(message: str) -> None:
    """Ends the program with a message."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def version() -> str:
    """The version of everything."""
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    return manifest["workspace"]["package"]["version"]


def arch() -> str:
    """The machine's, as archives are called."""
    name = platform.machine()
    if name not in DOCKER_ARCH:
        fail(f"this machine is `{name}`; releases are made on {' and '.join(DOCKER_ARCH)}")
    return name


def run(args: argparse.Namespace, *command: str) -> None:
    """Runs a program, or shows what would be run."""
    print("+", shlex.join(command), flush=True)
    if args.dry_run:
        return
    try:
        done = subprocess.run(command, cwd=ROOT, check=False)
    except FileNotFoundError:
        fail(f"there is no `{command[0]}`; install it, or look with --dry-run")
    if done.returncode != 0:
        fail(f"`{command[0]}` ended with {done.returncode}")


def registry() -> str:
    """Where images are put: `REGISTRY/OWNER/PROJECT`, in small letters as docker wants it."""
    name = os.environ.get("EXCITE_REGISTRY") or ""
    if not re.fullmatch(r"[\w.:-]+(/[\w.-]+)+", name):
        fail(f"EXCITE_REGISTRY is `{name}`; set it to the address that images are put at, such as "
             "registry.example/owner/excite")
    return name.lower()


def archive(args: argparse.Namespace) -> None:
    """Puts the programs with their licences into an archive, the same bytes for the same files."""
    if args.programs:
        fill(args, args.programs)
        return
    with tempfile.TemporaryDirectory() as made:
        run(args, "docker", "buildx", "build", "-f", "docker/Dockerfile", "--target", "programs",
            "--output", f"type=local,dest={made}", ".")
        if not args.dry_run:
            fill(args, Path(made))


def fill(args: argparse.Namespace, programs: Path) -> None:
    """Makes the archive of a folder that has the programs."""
    name = f"excite-{version()}-linux-{arch()}"
    missing = [program for program in PROGRAMS if not (programs / program).is_file()]
    if missing:
        fail(f"{programs} lacks {', '.join(missing)}; name the folder that cargo built into")
    args.dist.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        for program in PROGRAMS:
            shutil.copy(programs / program, folder / program)
            (folder / program).chmod(0o755)
        for text in ("LICENSE", "THIRD-PARTY-NOTICES.md"):
            shutil.copy(ROOT / text, folder)
        texts = folder / "THIRD-PARTY-LICENSES.txt"
        run(args, sys.executable, "tests/ops/release/notices.py", "--texts", str(texts))
        target = args.dist / f"{name}.tar.gz"
        with open(target, "wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed:
            with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for path in sorted(folder.iterdir()):
                    tar.add(path, f"{name}/{path.name}", filter=anonymous)
        print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry without who made it and when."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry


def images(args: argparse.Namespace) -> None:
    """Builds this machine's images and pushes them; on a GPU's base if asked."""
    build = ["docker", "buildx", "build", "-f", "docker/Dockerfile", "--push",
             "--provenance=false", "--build-arg", f"VERSION={version()}",
             "--build-arg", f"REVISION={os.environ.get('GITHUB_SHA', 'unknown')}"]
    if args.cuda:
        # Compiled anew: the programs of the archives know the CPU alone.
        tag = f"{registry()}/worker:{version()}-cuda"
        run(args, *build, "--build-arg", "DEVICE=cuda", "--target", "worker", "-t", tag, ".")
        return
    name = f"excite-{version()}-linux-{arch()}"
    with tempfile.TemporaryDirectory() as scratch:
        packed = args.dist / f"{name}.tar.gz"
        if not args.dry_run:
            if not packed.is_file():
                fail(f"there is no {packed}; run `release.py archive` first")
            with tarfile.open(packed) as tar:
                tar.extractall(scratch, filter="data")
        for image in IMAGES:
            tag = f"{registry()}/{image}:{version()}-{DOCKER_ARCH[arch()]}"
            run(args, *build, "--build-arg", "PROGRAMS=prebuilt", "--target", image, "-t", tag,
                f"{scratch}/{name}")


def join(args: argparse.Namespace) -> None:
    """Puts the images of all machines under one name."""
    for image in IMAGES:
        tag = f"{registry()}/{image}:{version()}"
        parts = [f"{tag}-{name}" for name in DOCKER_ARCH.values()]
        run(args, "docker", "buildx", "imagetools", "create", "-t", tag, *parts)


def chart(args: argparse.Namespace) -> None:
    """Packs the Helm chart."""
    if not (ROOT / "charts/excite/Chart.yaml").is_file():
        fail("there is no charts/excite/Chart.yaml; a release has a chart")
    run(args, "helm", "package", "charts/excite", "--destination", str(args.dist))


def checksums(args: argparse.Namespace) -> None:
    """Writes SHA256SUMS over all that is published."""
    files = sorted(p for p in args.dist.glob("*") if p.is_file() and p.name != "SHA256SUMS")
    if not files:
        fail(f"{args.dist} is empty; make archives and chart first")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in files]
    (args.dist / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def entry() -> str:
    """What the changelog says of this version."""
    text = (ROOT / "CHANGELOG.md").read_text()
    found = re.search(rf"^## {re.escape(version())} - .*?$\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not found:
        fail(f"CHANGELOG.md has no entry `## {version()} - YYYY-MM-DD`; write it")
    return found[1].strip() + "\n"


def publish(args: argparse.Namespace) -> None:
    """Makes the release page, with archives, chart and sums."""
    with tempfile.NamedTemporaryFile("w", suffix=".md") as notes:
        notes.write(entry())
        notes.flush()
        files = sorted(str(path) for path in args.dist.glob("*"))
        run(args, "gh", "release", "create", f"v{version()}", "--verify-tag",
            "--title", f"Excite {version()}", "--notes-file", notes.name, *files)


def main() -> None:
    """Reads the command line and takes one step."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="show commands, run none")
    parser.add_argument("--dist", type=Path, default=ROOT / "target/dist", metavar="FOLDER",
                        help="where what is published lies [default: target/dist]")
    steps = parser.add_subparsers(required=True, metavar="STEP")
    for step in (archive, images, join, chart, checksums, publish):
        one = steps.add_parser(step.__name__, help=step.__doc__, description=step.__doc__)
        one.set_defaults(step=step)
        if step is archive:
            one.add_argument("--programs", type=Path, metavar="FOLDER",
                             help="take the programs from here instead of building them")
        if step is images:
            one.add_argument("--cuda", action="store_true", help="the worker's, for GPUs")
    args = parser.parse_args()
    args.dist = args.dist.resolve()
    args.step(args)


if __name__ == "__main__":
    main()
