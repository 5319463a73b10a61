"""Builds the images of docker/Dockerfile with buildah, on a base from Debian's packages: no engine,
nothing pulled, the programs given. The stages that make the images are those of a release."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import tools
from report import Failed
from tools import CACHE, ROOT, run

TARGETS = ("worker", "dispatcher", "cli")
PROGRAMS = ("excite", "excite-dispatcher", "excite-worker")
SUITE = "bookworm"
BASE = f"localhost/debian:{SUITE}-slim"
# What Debian's slim image leaves out.
SLIM = [f"--dpkgopt=path-exclude={path}" for path in (
    "/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*",
    "/usr/share/lintian/*", "/usr/share/groff/*")]
UID = 65532


class Images:
    """Images in a storage of their own."""

    def __init__(self) -> None:
        self.folder = CACHE / "images"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.mounts: dict[str, tuple[str, Path]] = {}

    def buildah(self, *words: str | Path, timeout: float = 600) -> str:
        """Runs buildah; what it prints."""
        root = ["--root", self.folder / "storage", "--runroot", self.folder / "run"]
        env = {"BUILDAH_ISOLATION": "chroot"}
        return run(["buildah", *root, *words], env=env, timeout=timeout).stdout.strip()

    def base(self) -> str:
        """Makes what stands for debian:bookworm-slim."""
        packed = self.folder / f"{SUITE}.tar"
        if not packed.is_file():
            half = packed.with_suffix(".half.tar")
            run(["mmdebstrap", "--variant=minbase", "--include=ca-certificates", *SLIM, SUITE, half,
                 tools.debian_site()], timeout=1200)
            half.rename(packed)
        known = json.loads(self.buildah("images", "--json") or "null") or []
        if not any(BASE in (image.get("names") or []) for image in known):
            container = self.buildah("from", "scratch")
            self.buildah("add", "-q", container, packed, "/")
            self.buildah("commit", "-q", "--rm", container, BASE)
        return f"{SUITE}, {packed.stat().st_size / 1e6:.0f} MB packed"

    def build(self, programs: Path) -> str:
        """Builds all of them from a folder of programs."""
        missing = [name for name in PROGRAMS if not (programs / name).is_file()]
        if missing:
            raise Failed(f"--binaries {programs} lacks {', '.join(missing)}; name the folder that "
                         "cargo built into")
        context = self.folder / "context"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir()
        for name in PROGRAMS:
            shutil.copy(programs / name, context / name)
        for name in ("LICENSE", "THIRD-PARTY-NOTICES.md"):
            shutil.copy(ROOT / name, context / name)
        for target in TARGETS:
            # DEVICE is the default, but buildah 1.28 leaves stages out that only a default names.
            self.buildah(
                "bud", "--network", "host", "--pull-never", "--build-arg", f"BASE={BASE}",
                "--build-arg", "PROGRAMS=prebuilt", "--build-arg", "DEVICE=cpu", "--build-arg",
                "VERSION=check", "--target", target, "-t", self.name(target), "-f", ROOT / "docker/Dockerfile", context)
        return ", ".join(TARGETS)

    def libc(self) -> str:
        """The C library that docs/release.md promises to be enough."""
        page = (ROOT / "docs/release.md").read_text()
        promised = re.search(r"glibc (\d+)\.(\d+) or newer", page)
        if not promised:
            raise Failed("docs/release.md names no `glibc N.N or newer`; write it")
        want = (int(promised[1]), int(promised[2]))
        needed = (0, 0)
        for name in PROGRAMS:
            found = re.findall(rb"GLIBC_(\d+)\.(\d+)", (self.folder / "context" / name).read_bytes())
            needed = max([needed, *((int(major), int(minor)) for major, minor in found)])
        if needed > want:
            raise Failed(f"programs need glibc {needed[0]}.{needed[1]}, but docs/release.md promises "
                         f"{want[0]}.{want[1]}; compile them on an older system")
        return f"glibc {needed[0]}.{needed[1]}, as promised"

    def name(self, target: str) -> str:
        return f"localhost/excite-{target}:check"

    def config(self, target: str) -> dict:
        """The image's own settings."""
        found = json.loads(self.buildah("inspect", "--type", "image", self.name(target)))
        return found["OCIv1"]["config"]

    def settings(self) -> str:
        """Looks at what each image says of itself."""
        wanted = {
            "worker": ("excite-worker", ["9464/tcp"], None, "/etc/excite"),
            "dispatcher": ("excite-dispatcher", ["8080/tcp"], None, "/etc/excite"),
            "cli": ("excite", [], "SIGINT", "/work"),
        }
        for target, (program, ports, signal, folder) in wanted.items():
            config = self.config(target)
            labels = config.get("Labels", {})
            for key, found, want in (
                ("User", config.get("User"), f"{UID}:{UID}"),
                ("Entrypoint", config.get("Entrypoint"), [f"/usr/local/bin/{program}"]),
                ("Cmd", config.get("Cmd"), None),
                ("ExposedPorts", sorted(config.get("ExposedPorts", {})), ports),
                ("StopSignal", config.get("StopSignal"), signal),
                ("WorkingDir", config.get("WorkingDir"), folder),
                ("title", labels.get("org.opencontainers.image.title"), program),
                ("version", labels.get("org.opencontainers.image.version"), "check"),
                ("licenses", labels.get("org.opencontainers.image.licenses"), "MIT"),
            ):
                if found != want:
                    raise Failed(f"{target}: {key} is `{found}`; docker/Dockerfile should set "
                                 f"`{want}`")
        return f"uid {UID}, entry points, ports, signals, labels"

    def sizes(self) -> str:
        """What each image has beyond its base, and the base."""
        base = folder_bytes(self.mount(BASE))
        sizes = [f"{target} {(folder_bytes(self.mount(self.name(target))) - base) / 1e6:.1f} MB"
                 for target in TARGETS]
        return f"{', '.join(sizes)}, each on a base of {base / 1e6:.0f} MB"

    def mount(self, image: str) -> Path:
        """A folder with an image's files, to be read only: all containers of it share one."""
        if image not in self.mounts:
            container = self.buildah("from", "--pull-never", image)
            self.mounts[image] = (container, Path(self.buildah("mount", container)))
        return self.mounts[image][1]

    def close(self) -> None:
        """Takes working copies and former images away; the last ones stay for the next time."""
        if self.mounts:
            self.buildah("rm", *(container for container, _ in self.mounts.values()))
            self.buildah("rmi", "--prune", "--force")


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder, of none that is elsewhere."""
    inodes = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            state = path.stat()
            inodes[state.st_ino] = state.st_size
    return sum(inodes.values())
