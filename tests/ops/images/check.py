#!/usr/bin/env python3
"""Checks the images and the stack of docker/: a line a step, exit status 1 if one fails.

Lints the Dockerfile, has docker-compose read compose.yaml, builds the images without an engine from
programs that are given, runs them as Kubernetes would against servers of this machine, and stops
them. What needs root, Debian or programs is skipped without, and says so.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from pathlib import Path

import tools
from compose import Compose
from images import Images
from layers import Layers
from report import Failed, Report, Skipped
from stack import Stack
from tools import ROOT, run

SCRIPTS = ("docker/compile.sh", "docker/outline.sh")


def dockerfile() -> str:
    """hadolint, with its settings beside this file."""
    settings = Path(__file__).with_name("hadolint.yaml")
    program, file = tools.hadolint(), ROOT / "docker/Dockerfile"
    run([program, "--config", settings, file])
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as broken:
        broken.write(file.read_text() + "\nRUN cd /tmp && sudo true\n")
        broken.flush()
        done = run([program, "--config", settings, broken.name], may_fail=True)
    if done.returncode == 0:
        raise Failed("hadolint takes `RUN cd /tmp && sudo true`: it finds nothing any more")
    return "hadolint finds nothing, and finds a fault that is put in"


def scripts() -> str:
    """The shell's own look, and shellcheck's if it is there."""
    for script in SCRIPTS:
        run(["sh", "-n", ROOT / script])
    if shutil.which("shellcheck") is None:
        return "sh -n; no shellcheck here"
    run(["shellcheck", *(ROOT / script for script in SCRIPTS)])
    return "sh -n, shellcheck"


def outline() -> str:
    """The layer of dependencies must not change with our code, and must with a manifest."""
    def made(change: tuple[str, str] | None) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as scratch:
            source, to = Path(scratch) / "source", Path(scratch) / "outline"
            ignored = shutil.ignore_patterns("target", ".git", "__pycache__", "*.safetensors")
            shutil.copytree(ROOT, source, ignore=ignored)
            if change:
                with open(source / change[0], "a", encoding="utf-8") as file:
                    file.write(change[1])
            run(["sh", ROOT / "docker/outline.sh", to], cwd=source)
            if change is None and shutil.which("cargo"):
                run(["cargo", "metadata", "--no-deps", "--format-version=1", "--locked",
                     "--offline"], cwd=to)
            return {path.relative_to(to).as_posix(): path.read_bytes()
                    for path in to.rglob("*") if path.is_file()}

    plain = made(None)
    if made(("crates/worker/src/lib.rs", "// more\n")) != plain:
        raise Failed("docker/outline.sh: a change of crates/worker/src/lib.rs changes the outline, "
                     "so dependencies would be compiled again")
    if made(("crates/worker/Cargo.toml", "# more\n")) == plain:
        raise Failed("docker/outline.sh: a change of crates/worker/Cargo.toml changes nothing")
    return f"{len(plain)} files, the same for other code, others for another manifest"


def context() -> str:
    """Every file that sources take in has to be in the build's context."""
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line.startswith("!")]
    taken = re.compile(r'include_(?:bytes|str|dir)!\(\s*(?:concat!\(\s*env!\("CARGO_MANIFEST_DIR"\),'
                       r'\s*)?"([^"$]+|\$CARGO_MANIFEST_DIR[^"]*)"')
    count = 0
    for source in sorted(ROOT.glob("crates/*/src/**/*.rs")):
        package = ROOT / Path(*source.relative_to(ROOT).parts[:2])
        for found in taken.finditer(source.read_text()):
            name, whole = found[1], found[0]
            absolute = "CARGO_MANIFEST_DIR" in whole
            begin = package if absolute else source.parent
            path = begin / name.replace("$CARGO_MANIFEST_DIR", "").lstrip("/")
            inside = path.resolve().relative_to(ROOT).as_posix()
            count += 1
            if not any(inside == keep or inside.startswith(f"{keep}/") for keep in kept):
                raise Failed(f".dockerignore: {source.relative_to(ROOT)} takes in {inside}, which "
                             "is left out; add a line for it")
    if count < 5:
        raise Failed(f"only {count} included files were found; mend this check")
    return f"{count} files that sources take in are in the context"


def built(report: Report, compose: Compose, binaries: Path) -> None:
    """Builds and runs the images; each step needs those before it."""
    images = Images()
    layers, stack = Layers(images), Stack(images, compose, binaries)
    try:
        if not report.step("tools for images", lambda: tools.packages() or "buildah, crun"):
            return
        for name, act in (
            ("base", images.base),
            ("layers", layers.check),
            ("build", lambda: images.build(binaries)),
            ("C library", images.libc),
            ("settings", images.settings),
            ("sizes", images.sizes),
        ):
            if not report.step(name, act):
                return
        for name, act in (
            ("servers", stack.start_servers),
            ("dispatcher without tokens", stack.refuses),
            ("topology", stack.topology),
            ("dispatcher", stack.dispatcher),
            ("worker", stack.worker),
            ("an image", stack.makes_an_image),
            ("stopping the worker", stack.stop_worker),
            ("stopping the dispatcher", stack.stop_dispatcher),
            ("stopping the command line", stack.stop_cli),
        ):
            if not report.step(name, act):
                return
    finally:
        stack.close()
        images.close()


def programs(given: Path | None) -> Path:
    """Where the programs are."""
    for folder in [given] if given else [ROOT / "target/release", ROOT / "target/debug"]:
        if (folder / "excite-worker").is_file() or given:
            return folder.resolve()
    raise Skipped("no programs are built; name their folder with --binaries")


def main() -> int:
    """Reads the command line, takes all steps, and gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--binaries", type=Path, metavar="FOLDER",
                        help="where excite, excite-dispatcher and excite-worker are [default: "
                             "target/release or target/debug]")
    parser.add_argument("--no-images", action="store_true", help="build and run nothing")
    args = parser.parse_args()
    report, compose = Report(), Compose()
    for name, act in (
        ("Dockerfile", dockerfile), ("scripts", scripts), ("outline", outline),
        ("context", context), ("compose", compose.valid), ("compose, unknown key", compose.strict),
        ("compose, rights", compose.confined), ("compose, order", compose.order),
        ("compose, passwords", compose.passwords), ("compose, files", compose.files),
        ("Prometheus", compose.prometheus),
    ):
        report.step(name, act)
    if not args.no_images:
        found: list[Path] = []
        if report.step("programs", lambda: found.append(programs(args.binaries)) or str(found[0])):
            built(report, compose, found[0])
    return report.status()


if __name__ == "__main__":
    sys.exit(main())
