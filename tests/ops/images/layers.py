"""Whether the layers of docker/Dockerfile do what they are parted for: a change of our code must
compile our code again, from the context that .dockerignore leaves, and no dependency. Compiling is
too slow here, so a stand-in for cargo takes notes instead."""

from __future__ import annotations

import shutil

from images import BASE, PROGRAMS, Images
from report import Failed
from tools import ROOT

# Each call leaves a mark that no other has; programs are the marks so far, and all sources.
CARGO = """#!/bin/sh
set -eu
test "$1" = build
mkdir -p target/release
cat /proc/sys/kernel/random/uuid >>target/marks
for program in excite excite-dispatcher excite-worker; do
    cat target/marks $(find crates tests -name '*.rs' | sort) >target/release/$program
done
"""
# compile.sh calls cargo for each program, of the outline and of the sources.
CALLS = len(PROGRAMS)
CHANGED = "crates/worker/src/lib.rs"


class Layers:
    """Builds of a copy of this checkout."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.source = images.folder / "source"

    def toolchain(self) -> str:
        """An image whose cargo is the stand-in."""
        name = "localhost/rust:stand-in"
        script = self.images.folder / "cargo"
        script.write_text(CARGO)
        script.chmod(0o755)
        container = self.images.buildah("from", "--pull-never", BASE)
        self.images.buildah("copy", "-q", container, script, "/usr/local/bin/cargo")
        self.images.buildah("commit", "-q", "--rm", container, name)
        return name

    def build(self, rust: str, tag: str) -> str:
        """Builds as `docker build --target programs` does; what became of `excite`."""
        name = f"localhost/excite-programs:{tag}"
        self.images.buildah(
            "bud", "--layers", "--network", "host", "--pull-never", "--build-arg", f"BASE={BASE}",
            "--build-arg", f"RUST={rust}", "--build-arg", "DEVICE=cpu", "--build-arg",
            "PROGRAMS=built", "--target", "programs", "-t", name, "-f",
            self.source / "docker/Dockerfile", self.source)
        return (self.images.mount(name) / "excite").read_text()

    def check(self) -> str:
        """Builds, changes our code, and builds again."""
        shutil.rmtree(self.source, ignore_errors=True)
        ignored = shutil.ignore_patterns("target", ".git", "__pycache__")
        shutil.copytree(ROOT, self.source, ignore=ignored)
        try:
            rust = self.toolchain()
            first = self.build(rust, "first")
            with open(self.source / CHANGED, "a", encoding="utf-8") as file:
                file.write("// A change.\n")
            second = self.build(rust, "second")
        finally:
            shutil.rmtree(self.source, ignore_errors=True)
        marks = [text.splitlines()[: 2 * CALLS] for text in (first, second)]
        if "// A change." in first or "// A change." not in second:
            raise Failed("docker/Dockerfile: the second build did not compile what was changed")
        if marks[0][:CALLS] != marks[1][:CALLS]:
            raise Failed(f"docker/Dockerfile: a change of {CHANGED} compiles dependencies again")
        if marks[0][CALLS:] == marks[1][CALLS:]:
            raise Failed("docker/Dockerfile: the second build did not compile our code again")
        return "a change of our code compiles our code again, and no dependency"
